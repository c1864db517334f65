//! Eight-bit weights with a scale per block: read, and never written.

use super::*;

/// Name, type, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// Sizes of the one matrix that is stored in eight bits: neither is a multiple of a block.
const SHAPE: [usize; 2] = [130, 160];

const SCALES: [f32; 4] = [0.5, 3.0, 0.25, 7.0];

fn config() -> ModelConfig {
    let mut config = small(Family::DeepseekV3);
    config.mixture.width = SHAPE[0];
    config.mixture.shared_width = SHAPE[0];
    config.hidden_size = SHAPE[1];
    config
}

fn matrix() -> String {
    let [gate, _, _] = expert_parameter_names(Family::DeepseekV3, 1, 2);
    gate
}

fn scales() -> String {
    format!("{}_scale_inv", matrix())
}

/// All codes of positive numbers, over and over.
fn codes() -> Vec<u8> {
    (0..120).cycle().take(SHAPE[0] * SHAPE[1]).collect()
}

/// The model in single precision but for one matrix, and that one's scales.
fn tensors() -> Vec<Stored> {
    let mut tensors: Vec<Stored> = parameters(&config())
        .into_iter()
        .filter(|(name, _)| *name != matrix())
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (name, Dtype::F32, shape, bytes.collect())
        })
        .collect();
    tensors.push((matrix(), Dtype::F8_E4M3, SHAPE.to_vec(), codes()));
    let bytes = SCALES.iter().flat_map(|scale| scale.to_le_bytes());
    tensors.push((scales(), Dtype::F32, vec![2, 2], bytes.collect()));
    tensors
}

fn save(tensors: &[Stored]) -> TempDir {
    let folder = folder(&config(), &Tensors::new(), ENCODINGS[0]);
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("whole tensors"))
    });
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("the file is written");
    folder
}

/// By the definition of the type: (8 + fraction)·2^(exponent − 10), and below the normal numbers
/// fraction·2^−9. Every number takes the scale of its block, also in the blocks at the edges.
#[test]
fn eight_bit_weights_are_multiplied_by_the_scales_of_their_blocks() {
    let folder = save(&tensors());
    let checkpoint = open(&folder);
    checkpoint.check(&everything).unwrap();
    assert_eq!(checkpoint.element(&matrix()).unwrap(), FileElement::F8E4M3);
    let number = |code: u8| match code {
        0..8 => f32::from(code) * 2f32.powi(-9),
        _ => f32::from(8 + code % 8) * 2f32.powi(i32::from(code / 8) - 10),
    };
    let values = all_values(&checkpoint.parameter(&matrix()).unwrap());
    for (index, (value, code)) in values.into_iter().zip(codes()).enumerate() {
        let (row, column) = (index / SHAPE[1], index % SHAPE[1]);
        let scale = SCALES[row / 128 * 2 + column / 128];
        assert_eq!(value, number(code) * scale, "row {row} column {column}");
    }
}

#[test]
fn eight_bit_weights_without_fitting_scales_are_refused() {
    let mut tensors = tensors();
    let (_, _, shape, _) = tensors.last_mut().expect("the scales");
    *shape = vec![4, 1];
    let expected = format!("tensor {} should have shape [2, 2], found [4, 1]", scales());
    assert_eq!(refusal(open(&save(&tensors)).check(&everything)), expected);
    tensors.pop();
    let expected = format!("tensor {} is missing", scales());
    assert_eq!(refusal(open(&save(&tensors)).check(&everything)), expected);
}

/// What should happen: a refusal, since scales would have to be chosen anew. What should not happen: a
/// folder that is half written. Other parameters are replaced around the eight-bit ones.
#[test]
fn eight_bit_weights_are_copied_and_not_replaced() {
    let folder = save(&tensors());
    let checkpoint = open(&folder);
    let target = tempfile::tempdir().unwrap();
    let zeros = vec![0.0; SHAPE[0] * SHAPE[1]];
    let replace = |name: &str| -> Option<Box<dyn Rows + '_>> {
        (name == matrix()).then(|| Box::new(&zeros[..]) as _)
    };
    let expected = format!(
        "tensor {} is stored as F8_E4M3, which is read but not written",
        matrix()
    );
    assert_eq!(refusal(checkpoint.write(target.path(), &replace)), expected);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);

    let norm = "model.norm.weight";
    let replace = |name: &str| -> Option<Box<dyn Rows + '_>> {
        (name == norm).then(|| Box::new(&zeros[..SHAPE[1]]) as _)
    };
    checkpoint.write(target.path(), &replace).unwrap();
    let mut expected = read_back(&checkpoint);
    expected.insert(norm.into(), (vec![SHAPE[1]], zeros[..SHAPE[1]].to_vec()));
    assert!(read_back(&open(&target)) == expected);
}
