//! Each form, there and back.

use proptest::prelude::*;

use super::*;

fn any_setting() -> impl Strategy<Value = Setting> {
    prop_oneof![
        any::<bool>().prop_map(Setting::EnablePush),
        any::<u32>().prop_map(Setting::MaxConcurrentStreams),
        (0..=LARGEST_31).prop_map(Setting::InitialWindow),
        (DEFAULT_MAX_FRAME..=LARGEST_MAX_FRAME).prop_map(Setting::MaxFrame),
        any::<u32>().prop_map(Setting::MaxHeaderList),
        (7_u16.., any::<u32>()).prop_map(|(identifier, value)| Setting::Other(identifier, value)),
    ]
}

proptest! {
    #[test]
    fn headers_both_ways(length in 0..=LARGEST_MAX_FRAME, kind: u8, flags: u8, stream in 0..=LARGEST_31) {
        let header = FrameHeader { length, kind: Kind::from(kind), flags, stream };
        prop_assert_eq!(FrameHeader::decode(header.encode()), header);
        prop_assert_eq!(u8::from(header.kind), kind);
    }

    #[test]
    fn settings_both_ways(settings in prop::collection::vec(any_setting(), 0..20)) {
        let payload: Vec<u8> = settings.iter().flat_map(|setting| setting.encode()).collect();
        let decoded: Result<Vec<Setting>, Violation> = Setting::decode_all(&payload).unwrap().collect();
        prop_assert_eq!(decoded, Ok(settings));
        prop_assert!(payload.is_empty() || Setting::decode_all(&payload[1..]).is_err());
    }

    #[test]
    fn goaway_both_ways(last in 0..=LARGEST_31, code: u32, debug: Vec<u8>) {
        let payload = [&encode_goaway(last, ResetCode(code))[..], &debug].concat();
        prop_assert_eq!(decode_goaway(&payload), Ok((last, ResetCode(code))));
        prop_assert_eq!(decode_goaway(&payload[..7]), Err(Violation::FRAME_SIZE));
    }

    #[test]
    fn padding_and_priority_go(fragment: Vec<u8>, padding in proptest::option::of(any::<u8>()), priority: bool) {
        let mut payload: Vec<u8> = padding.into_iter().collect();
        payload.extend(if priority { &[1; 5][..] } else { &[] });
        payload.extend(&fragment);
        payload.extend(vec![0; padding.unwrap_or(0).into()]);
        let flags = if padding.is_some() { PADDED } else { 0 } | if priority { PRIORITY_FIELDS } else { 0 };
        prop_assert_eq!(strip_headers(flags, &payload), Ok(&fragment[..]));
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>, flags: u8) {
        let _ = strip_headers(flags, &noise);
        let _ = decode_goaway(&noise);
        let _ = decode_word(&noise);
        let _ = Setting::decode_all(&noise).map(|settings| settings.filter(Result::is_ok).count());
    }
}
