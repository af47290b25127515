//! The target `http2_client` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _outcome = weft_fuzz::targets::by_name("http2_client").map(|target| (target.run)(bytes));
});
