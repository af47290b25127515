//! The target `yaml` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _outcome = weft_fuzz::targets::by_name("yaml").map(|target| (target.run)(bytes));
});
