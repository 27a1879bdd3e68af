//! Any cut, order and repetition of pieces gives exactly the bytes 0..n.

use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::contents;
use crate::streams::assembler::Assembler;

const LEN: u64 = 20_000;

fn pieces() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let piece = prop_oneof![
        (0..LEN, 0..100_u64),
        (0..LEN, 0..3000_u64),
        // On a grid, so that pieces touch each other.
        (0..LEN / 500, 0..6_u64).prop_map(|(at, len)| (at * 500, len * 500)),
    ];
    prop::collection::vec(piece, 0..120)
}

/// Reads all there is, and checks it.
fn drain(assembler: &mut Assembler, read: &mut u64, max: usize) {
    while let Some(bytes) = assembler.read(max) {
        assert!(!bytes.is_empty() && bytes.len() <= max);
        let end = *read + bytes.len() as u64;
        assert_eq!(bytes, contents(0, *read..end));
        *read = end;
    }
    assert_eq!(*read, assembler.read_offset());
    assert_eq!(*read, assembler.ready_end());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn the_output_is_exactly_what_was_sent(
        pieces in pieces(),
        rest in 1..2500_u64,
        backwards in any::<bool>(),
        reads in prop::collection::vec(0..2000_usize, 120),
    ) {
        let mut assembler = Assembler::default();
        let (mut read, mut arrived) = (0, 0);
        let mut seen = crate::range_set::RangeSet::new();
        let mut put = |assembler: &mut Assembler, at: u64, end: u64| {
            let end = end.min(LEN);
            let new_bytes = assembler.insert(at, Bytes::from(contents(0, at..end)));
            prop_assert_eq!(new_bytes, seen.insert(at..end));
            arrived += new_bytes;
            prop_assert_eq!(assembler.buffered_bytes(), arrived - assembler.read_offset());
            Ok(())
        };
        for ((at, len), max) in pieces.into_iter().zip(reads) {
            put(&mut assembler, at, at + len)?;
            if max > 1000 {
                drain(&mut assembler, &mut read, max);
            }
        }
        // Whatever came before, the rest completes it.
        let mut all: Vec<u64> = (0..LEN).step_by(rest as usize).collect();
        if backwards {
            all.reverse();
        }
        for at in all {
            put(&mut assembler, at, at + rest)?;
        }
        drain(&mut assembler, &mut read, usize::MAX);
        prop_assert_eq!(read, LEN);
        prop_assert_eq!(assembler.waiting_pieces(), 0);
        prop_assert_eq!(assembler.buffered_bytes(), 0);
    }
}

#[test]
fn big_pieces_are_handed_out_as_they_came() {
    let mut assembler = Assembler::default();
    let data = Bytes::from(contents(0, 0..4000));
    assembler.insert(2000, data.slice(2000..));
    assembler.insert(0, data.slice(..2000));
    let first = assembler.read(usize::MAX).unwrap();
    let second = assembler.read(usize::MAX).unwrap();
    assert_eq!(first.as_ptr(), data.as_ptr());
    assert_eq!(second.as_ptr(), data[2000..].as_ptr());
}

#[test]
fn small_pieces_let_go_of_their_packet_and_grow_together() {
    let mut assembler = Assembler::default();
    let packet = Bytes::from(contents(0, 0..1000));
    for at in 0..1000 {
        assembler.insert(at as u64, packet.slice(at..at + 1));
    }
    assert!(packet.is_unique());
    assert_eq!(assembler.read(usize::MAX).unwrap(), contents(0, 0..1000));
}

#[test]
fn small_pieces_behind_a_gap_grow_together() {
    let mut assembler = Assembler::default();
    for at in 1..1000 {
        assembler.insert(at, Bytes::from(contents(0, at..at + 1)));
    }
    assert_eq!(assembler.waiting_pieces(), 1);
    assembler.insert(0, Bytes::from(contents(0, 0..1)));
    let mut read = 0;
    drain(&mut assembler, &mut read, usize::MAX);
    assert_eq!(read, 1000);
}
