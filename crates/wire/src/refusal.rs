//! Reasons across gRPC: a server refuses with a [`Reason`], its client reads the same one. The code travels in the header
//! `weft-reason` and begins the message, so that a stranger's client shows it, too.

use tonic::{Code, Status};
use weft_model::Reason;

/// The header that carries the reason code.
const HEADER: &str = "weft-reason";

/// A refusal as a gRPC status.
#[must_use]
pub fn refuse(reason: Reason, detail: &str) -> Status {
    let code = match (reason, reason.status()) {
        (Reason::Unauthenticated, _) => Code::Unauthenticated,
        (_, 401) => Code::PermissionDenied,
        (_, 400) => Code::InvalidArgument,
        _ => Code::Unavailable,
    };
    let mut status = Status::new(code, format!("{reason}: {detail}"));
    if let Ok(value) = reason.code().parse() {
        status.metadata_mut().insert(HEADER, value);
    }
    status
}

/// The reason of a refusal, if the server is one of ours.
#[must_use]
pub fn reason_of(status: &Status) -> Option<Reason> {
    let header = status.metadata().get(HEADER).and_then(|value| value.to_str().ok());
    let word = header.or_else(|| status.message().split_once(':').map(|(word, _)| word))?;
    Reason::from_code(word)
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use weft_model::Reason;

    use super::{reason_of, refuse};

    #[test]
    fn what_is_refused_is_read_back() {
        for reason in Reason::ALL {
            let status = refuse(*reason, "because");
            assert_eq!(reason_of(&status), Some(*reason));
            assert_eq!(reason_of(&Status::new(status.code(), status.message())), Some(*reason));
        }
        assert_eq!(refuse(Reason::Unauthenticated, "").code(), Code::Unauthenticated);
        assert_eq!(refuse(Reason::WrongNode, "").code(), Code::PermissionDenied);
        assert_eq!(refuse(Reason::BadCertificateRequest, "").code(), Code::InvalidArgument);
        assert_eq!(reason_of(&Status::internal("something: else")), None);
    }
}
