//! A part of the inputs that speaks for all of them: from the start of every source, in proportion to its size.

use super::{
    error::DatasetError,
    notes::Notes,
    progress::Progress,
    read::{Next, Position, ReadOptions, Reader},
    source::Source,
};

/// Text that is read of all sources together, at most.
const SAMPLE_BYTES: u64 = 16 << 20;

/// Hands what is read to `found`. It may include held-out text: what is learned of it is which words are frequent.
pub fn sample<'a>(
    sources: &'a [Source],
    options: ReadOptions,
    notes: &mut Notes,
    bar: &Progress,
    mut found: impl FnMut(Next, &'a Source) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let bytes: u64 = sources.iter().map(Source::text_bytes).sum();
    let share = (SAMPLE_BYTES as f64 / bytes.max(1) as f64).min(1.0);
    let (mut taken, mut seen) = (0, 0);
    for source in sources {
        seen += source.text_bytes();
        let mut reader = Reader::open(source, options, Position::default(), notes)?;
        while (taken as f64) < share * seen as f64 {
            let Some(next) = reader.next(notes)? else { break };
            if let Next::Pieces(pieces) = &next {
                taken += pieces.iter().map(|piece| piece.text.len() + 4 * piece.ids.len()).sum::<usize>();
            }
            found(next, source)?;
        }
        bar.set_position(seen);
    }
    Ok(())
}
