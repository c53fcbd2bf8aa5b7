//! Counts what a volume has that others have not, with what every store can say: differences and extents.

use crate::{Store, StoreError, Volume, VolumeId};

/// So that what is held in memory of a large volume's differences stays small.
const COUNTED_AT_ONCE: u64 = 64 << 30;

/// From and end, in bytes.
type Range = (u64, u64);

pub fn added_bytes<S: Store + ?Sized>(store: &S, id: VolumeId, than: &[VolumeId]) -> Result<u64, StoreError> {
    if than.is_empty() {
        return Ok(store.usage(id)?.mapped_bytes);
    }
    let volume = store.open(id)?;
    let (size_bytes, mut start, mut added_bytes) = (volume.size_bytes(), 0, 0);
    while start < size_bytes {
        let window = (start, size_bytes.min(start.saturating_add(COUNTED_AT_ONCE)));
        let mut ranges = vec![window];
        for &other in than {
            ranges = common(&ranges, &differing_within(store, other, id, window)?);
        }
        for range in ranges {
            added_bytes += mapped_within(volume.as_ref(), range)?;
        }
        start = window.1;
    }
    Ok(added_bytes)
}

fn differing_within<S: Store + ?Sized>(
    store: &S,
    older: VolumeId,
    newer: VolumeId,
    window: Range,
) -> Result<Vec<Range>, StoreError> {
    let (mut ranges, mut offset) = (Vec::new(), Some(window.0));
    while let Some(from) = offset.filter(|offset| *offset < window.1) {
        let found = store.differences(older, newer, from, 10_000)?;
        let inside = found.ranges.iter().take_while(|range| range.0 < window.1);
        ranges.extend(inside.map(|&(start, length)| (start, window.1.min(start + length))));
        offset = found.next;
    }
    Ok(ranges)
}

/// What is in both of two ascending lists.
fn common(a: &[Range], b: &[Range]) -> Vec<Range> {
    let (mut found, mut i, mut j) = (Vec::new(), 0, 0);
    while i < a.len() && j < b.len() {
        let (from, end) = (a[i].0.max(b[j].0), a[i].1.min(b[j].1));
        if from < end {
            found.push((from, end));
        }
        if a[i].1 < b[j].1 { i += 1 } else { j += 1 }
    }
    found
}

fn mapped_within(volume: &dyn Volume, range: Range) -> Result<u64, StoreError> {
    let (mut offset, mut mapped_bytes) = (range.0, 0);
    while offset < range.1 {
        let failed = |error| StoreError::Io(format!("cannot see what is mapped at {offset}: {error}"));
        let extent = volume.extent(offset).map_err(failed)?;
        let length = extent.length_bytes.min(range.1 - offset).max(1);
        mapped_bytes += if extent.mapped { length } else { 0 };
        offset += length;
    }
    Ok(mapped_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_lists_have_in_common() {
        assert_eq!(common(&[(0, 10)], &[(2, 4), (6, 12)]), [(2, 4), (6, 10)]);
        assert_eq!(common(&[(0, 2), (4, 6)], &[(2, 4), (6, 8)]), []);
        assert_eq!(common(&[(0, 2), (3, 9)], &[(1, 5), (5, 7), (8, 20)]), [(1, 2), (3, 5), (5, 7), (8, 9)]);
        assert_eq!(common(&[], &[(0, 1)]), []);
    }
}
