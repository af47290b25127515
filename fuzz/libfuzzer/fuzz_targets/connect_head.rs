//! The target `connect_head` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _outcome = weft_fuzz::targets::by_name("connect_head").map(|target| (target.run)(bytes));
});
