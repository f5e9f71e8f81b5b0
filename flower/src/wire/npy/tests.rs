//! Arrays as numpy 2 wrote them, and their mirror image.

use super::*;
use proptest::prelude::*;

fn file(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let head = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((head.len() as u16).to_le_bytes());
    bytes.extend(head.bytes());
    bytes.extend(data);
    bytes
}

fn le<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    values.into_iter().flatten().collect()
}

#[test]
fn all_types_that_a_lab_sends_are_read() {
    let expected = Array { dtype: Dtype::Float32, shape: vec![2, 2], values: vec![1.0, -2.0, 3.0, 4.5] };
    let values = [1.0f32, -2.0, 3.0, 4.5];
    assert_eq!(Array::read(&file("<f4", "False", "(2, 2)", &le(values.map(f32::to_le_bytes)))), Ok(expected));
    let read = |descr: &str, data: Vec<u8>| {
        let Array { dtype, shape, values } = Array::read(&file(descr, "False", "(3,)", &data)).unwrap();
        assert_eq!(shape, [3]);
        (dtype, values)
    };
    let whole = [7i64, -1, 1 << 40];
    assert_eq!(read("<i8", le(whole.map(i64::to_le_bytes))), (Dtype::Int64, whole.map(|n| n as f32).to_vec()));
    assert_eq!(read(">i4", le([7i32, -1, 3].map(i32::to_be_bytes))), (Dtype::Int32, vec![7.0, -1.0, 3.0]));
    assert_eq!(read(">f8", le([0.5f64, 2.0, 0.1].map(f64::to_be_bytes))), (Dtype::Float64, vec![0.5, 2.0, 0.1]));
    let scalar = Array::read(&file("<f8", "False", "()", &2.5f64.to_le_bytes())).unwrap();
    assert_eq!((scalar.shape.len(), scalar.values), (0, vec![2.5]));
}

#[test]
fn fortran_order_is_turned_into_rows() {
    // numpy.asfortranarray(numpy.arange(6).reshape(2, 3)) lies as 0 3 1 4 2 5.
    let data = le([0f32, 3.0, 1.0, 4.0, 2.0, 5.0].map(f32::to_le_bytes));
    let array = Array::read(&file("<f4", "True", "(2, 3)", &data)).unwrap();
    assert_eq!((array.shape, array.values), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    // arange(24).reshape(2, 3, 4): the value i, j, k lies at i + 2j + 6k.
    let place = |at: usize| [at % 2, at / 2 % 3, at / 6];
    let data = le((0..24).map(|at| {
        let [i, j, k] = place(at);
        ((i * 12 + j * 4 + k) as f32).to_le_bytes()
    }));
    let array = Array::read(&file("<f4", "True", "(2, 3, 4)", &data)).unwrap();
    assert_eq!(array.values, (0..24).map(|n| n as f32).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_taken_is_told() {
    let told = |descr: &str, shape: &str, bytes: usize| Array::read(&file(descr, "False", shape, &vec![0; bytes]));
    assert_eq!(told("|b1", "(2,)", 2), Err(NpyError::Dtype("|b1".into())));
    assert_eq!(told("<f2", "(2,)", 4), Err(NpyError::Dtype("<f2".into())));
    assert_eq!(told("<f4", "(2,)", 7), Err(NpyError::Length { expected: 8, got: 7 }));
    assert_eq!(told("<f4", "(9999999999, 9999999999)", 8), Err(NpyError::Foreign));
    assert_eq!(Array::read(b"PK\x03\x04"), Err(NpyError::Foreign));
}

#[test]
fn what_is_written_is_read_again_from_any_pieces() {
    let values: Vec<f32> = (0..1000).map(|n| n as f32 / 3.0).collect();
    for (dtype, shape) in [(Dtype::Float32, vec![1000]), (Dtype::Float64, vec![10, 100]), (Dtype::Int64, vec![1000])] {
        let writer = Writer::new(dtype, &shape, &values);
        let mut bytes = vec![];
        while bytes.len() < writer.len() {
            bytes.extend(writer.piece(bytes.len()..(bytes.len() + 104).min(writer.len())));
        }
        assert_eq!(Array::read(&bytes), Ok(Array { dtype: dtype.trained(), shape, values: values.clone() }));
        assert_eq!(bytes, writer.piece(0..writer.len()));
        assert_eq!((bytes.len() - values.len() * dtype.trained().bytes()) % 64, 0, "values are aligned");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(head in ".{0,80}", data in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = Array::read(&file("<f4", "True", &head, &data));
        let _ = Array::read(&data);
        let _ = Array::read(&[MAGIC, &data].concat());
    }
}
