//! Puts what an idle agent runs side by side in the release build, and the C library into it.
//!
//! A program's pages come into memory by 64 KiB around the one that was asked for, and an agent runs a third of its code: strewn over
//! all of it, that third is most of an idle agent's memory. `layout.txt` names the functions that ran, in the order in which they first
//! did (docs/performance.md says how it is made). Here it becomes a linker script that puts them in front of all others. A name that is not
//! there does nothing; a function that is not named is where it would have been.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

/// Objects of aws-lc's assembler that a handshake and its records run: they have no section for each function.
const ASSEMBLED: [&str; 13] = [
    "mlkem*_asm",
    "curve25519*",
    "bignum*25519",
    "sha3_*",
    "sha256-*",
    "sha512-*",
    "p256*",
    "bignum_montinv_p256",
    "rdrand-*",
    "x86_64-mont",
    "aesni-x86_64",
    "ghash-x86_64",
    "aesni-gcm-*",
];

/// The libraries that glibc consists of.
const OF_THE_C_LIBRARY: [&str; 6] = ["c", "m", "pthread", "dl", "rt", "util"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=layout.txt");
    let of_cargo = |name| env::var_os(name).ok_or("cargo runs this");
    // The linker of this target understands it; others have not been tried.
    if of_cargo("PROFILE")? != "release" || of_cargo("TARGET")? != "x86_64-unknown-linux-gnu" {
        return Ok(());
    }
    let script = Path::new(&of_cargo("OUT_DIR")?).join("layout.ld");
    fs::write(&script, linker_script(&fs::read_to_string("layout.txt")?)?)?;
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    // 24 bytes for each of 20,000 pointers, all read at start and never again, become a bit or two.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // The C library and gcc's unwinder within the program, which stays position independent: three files less to map, with the
    // tables of each. rustc asks for the shared libraries by name, and finds these files in their place.
    println!("cargo:rustc-link-arg-bins=-static-pie");
    let libraries = Path::new(&of_cargo("OUT_DIR")?).join("libraries");
    fs::create_dir_all(&libraries)?;
    fs::write(libraries.join("libgcc_s.so"), "INPUT(-l:libgcc_eh.a -l:libgcc.a)\n")?;
    for name in OF_THE_C_LIBRARY {
        fs::write(libraries.join(format!("lib{name}.so")), format!("INPUT(-l:lib{name}.a)\n"))?;
    }
    // Not `rustc-link-search`, which would reach the programs of other packages that use this one's library, and those are not static.
    println!("cargo:rustc-link-arg-bins=-L{}", libraries.display());
    Ok(())
}

/// First all functions by their full names, in order; then by their names without what differs from build to build (the hash
/// of crates and types, the version of aws-lc): there are more of those than ran, but it is better than nothing.
fn linker_script(names: &str) -> Result<String, std::fmt::Error> {
    let names: Vec<&str> =
        names.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut script = String::from("SECTIONS\n{\n  .text.used :\n  {\n");
    for name in &names {
        writeln!(script, "    *(.text.{name} .text.unlikely.{name})")?;
    }
    for object in ASSEMBLED {
        writeln!(script, "    *aws_lc_sys*:*-{object}.o(.text)")?;
    }
    for name in &names {
        if let Some(stem) = stem(name) {
            writeln!(script, "    *(.text.{stem}* .text.unlikely.{stem}*)")?;
        }
    }
    script.push_str("  }\n}\nINSERT BEFORE .text;\n");
    Ok(script)
}

/// `_ZN…17h0123456789abcdefE` up to the `h`.
fn stem(name: &str) -> Option<&str> {
    let (stem, hash) = name.split_at_checked(name.len().checked_sub(17)?)?;
    let is_hash = stem.starts_with("_ZN") && stem.ends_with("17h") && hash.ends_with('E');
    is_hash.then_some(stem)
}
