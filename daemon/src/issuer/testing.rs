//! What the tests of the issuer share.

/// What stands in for the system's random bytes.
pub(crate) type Bytes = Box<dyn FnMut(&mut [u8])>;

/// Random bytes that are not: every call gives others, in the same order in each test.
pub(crate) fn counting() -> Bytes {
    let mut next = 0_u64;
    Box::new(move |bytes: &mut [u8]| {
        for chunk in bytes.chunks_mut(8) {
            next += 1;
            // Spread over the whole byte, so that every letter of a short code can come.
            let mixed = next.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
            chunk.copy_from_slice(&mixed[8 - chunk.len()..]);
        }
    })
}
