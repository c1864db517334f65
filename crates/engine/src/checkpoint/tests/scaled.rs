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

/// The model with every expert matrix in eight bits, with scales.
fn scaled_experts() -> Vec<Stored> {
    let mut tensors = Vec::new();
    for (name, dtype, shape, bytes) in tensors_in_single_precision() {
        if crate::names::parse_expert_name(&name).is_none() {
            tensors.push((name, dtype, shape, bytes));
            continue;
        }
        let scales: Vec<usize> = shape.iter().map(|size| size.div_ceil(128)).collect();
        let count: usize = scales.iter().product();
        let factors = (0..count).flat_map(|n| (n as f32 + name.len() as f32).to_le_bytes());
        let factors = factors.collect();
        tensors.push((format!("{name}_scale_inv"), Dtype::F32, scales, factors));
        let codes = bytes.chunks_exact(4).map(|number| number[2] % 120);
        tensors.push((name, Dtype::F8_E4M3, shape, codes.collect()));
    }
    tensors
}

fn tensors_in_single_precision() -> impl Iterator<Item = Stored> {
    parameters(&config())
        .into_iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (name, Dtype::F32, shape, bytes.collect())
        })
}

/// Scales go where the weights go, into the slice and back.
#[test]
fn eight_bit_experts_are_sliced_with_their_scales_and_joined() {
    let base = save(&scaled_experts());
    let groups = sliced::groups(&config());
    let slices: Vec<TempDir> = groups
        .iter()
        .map(|group| sliced::slice(base.path(), group))
        .collect();
    let (whole, own) = (open(&base), open(&slices[0]));
    own.check(&|layer, expert| {
        groups[0]
            .get(&layer)
            .is_some_and(|held| held.contains(&expert))
    })
    .unwrap();
    let name = &expert_parameter_names(Family::DeepseekV3, 1, 5)[1];
    assert_eq!(
        all_values(&own.parameter(name).unwrap()),
        all_values(&whole.parameter(name).unwrap())
    );
    let scales = own
        .files
        .tensors
        .keys()
        .filter(|name| name.ends_with("_scale_inv"));
    assert_eq!(
        scales.count(),
        3 * groups[0].values().map(Vec::len).sum::<usize>()
    );

    let out = tempfile::tempdir().unwrap();
    let paths: Vec<_> = slices.iter().map(|slice| slice.path().to_owned()).collect();
    let report = join_slices(base.path(), &paths, out.path(), &mut |_| {}).unwrap();
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(out.path()) == weights(base.path()));
    assert_eq!((report.experts, report.changed), (16, 0));
}

/// Scales would have to be chosen anew, which is nobody's to decide here.
#[test]
fn numbers_of_another_type_do_not_become_eight_bit_ones() {
    let base = save(&scaled_experts());
    let mut wide = parameters(&config());
    wide.retain(|name, _| name.contains(".layers.1.mlp.experts.4."));
    let wide = folder(&config(), &wide, ENCODINGS[1]);
    let out = tempfile::tempdir().unwrap();
    let slices = [wide.path().to_owned()];
    let error = join_slices(base.path(), &slices, out.path(), &mut |_| {}).unwrap_err();
    let message = error.to_string();
    assert!(
        message.ends_with("is stored as BF16 and cannot become F8_E4M3"),
        "{message}"
    );
    assert!(
        message.starts_with("tensor model.layers.1.mlp.experts.4."),
        "{message}"
    );

    let plain = folder(&config(), &parameters(&config()), ENCODINGS[1]);
    let slices = [sliced::slice(base.path(), &[(1, vec![4])].into())];
    retell_none(slices[0].path());
    let paths = [slices[0].path().to_owned()];
    let error = join_slices(plain.path(), &paths, out.path(), &mut |_| {}).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is stored as F8_E4M3 and cannot become BF16"),
        "{error}"
    );
}

fn retell_none(folder: &Path) {
    sliced::retell(&folder.join("model.safetensors"), &[]);
}
