//! The parameters of one expert group, and the layout that they must have.
//!
//! A shard is the unit that is served, trained, merged and hashed. Splitting a model into shards and
//! joining them again changes no bit. Knows names and shapes; values are just numbers here.

use std::collections::BTreeMap;

use connito_engine::Tensor;

/// Tensor names of a group with their shapes; what every shard and update is checked against.
pub type Layout = BTreeMap<String, Vec<usize>>;

/// The tensors of one group, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shard(pub BTreeMap<String, Tensor>);

impl Shard {
    /// Names and shapes.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.0
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect()
    }

    /// All zeros in the given layout.
    #[must_use]
    pub fn zeros(layout: &Layout) -> Self {
        let zeros = |(name, shape): (&String, &Vec<usize>)| (name.clone(), Tensor::zeros(shape));
        Self(layout.iter().map(zeros).collect())
    }

    /// `self − base`, tensor by tensor, for the tensors that both have.
    #[must_use]
    pub fn difference(&self, base: &Self) -> Self {
        let tensors = self.0.iter().filter_map(|(name, tensor)| {
            let from = base.0.get(name)?;
            let values = tensor.values.iter().zip(&from.values).map(|(a, b)| a - b);
            let difference = Tensor {
                shape: tensor.shape.clone(),
                values: values.collect(),
            };
            Some((name.clone(), difference))
        });
        Self(tensors.collect())
    }

    /// `self + update`; tensors that the update does not list stay as they are.
    #[must_use]
    pub fn plus(&self, update: &Self) -> Self {
        let tensors = self.0.iter().map(|(name, tensor)| {
            let values = match update.0.get(name) {
                Some(change) => {
                    let pairs = tensor.values.iter().zip(&change.values);
                    pairs.map(|(value, change)| value + change).collect()
                }
                None => tensor.values.clone(),
            };
            let shape = tensor.shape.clone();
            (name.clone(), Tensor { shape, values })
        });
        Self(tensors.collect())
    }

    /// The tensors of [`Self::plus`] one after the other, in memory that is used again for the next.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn each_sum<E>(
        &self,
        update: &Self,
        mut each: impl FnMut(&str, &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut sum = Vec::new();
        for (name, tensor) in &self.0 {
            let Some(change) = update.0.get(name) else {
                each(name, &tensor.values)?;
                continue;
            };
            let pairs = tensor.values.iter().zip(&change.values);
            sum.clear();
            sum.extend(pairs.map(|(value, change)| value + change));
            each(name, &sum)?;
        }
        Ok(())
    }

    /// Euclidean norm over all tensors.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.product(self).sqrt()
    }

    /// Sum of the products of all values, over the tensors that both have.
    #[must_use]
    pub fn product(&self, other: &Self) -> f64 {
        let tensors = self.0.iter();
        let products = tensors.filter_map(|(name, tensor)| {
            let other = other.0.get(name)?;
            Some(dot(&tensor.values, &other.values))
        });
        products.sum()
    }
}

/// Sum of products, in f64, in an order that is fixed and the same on every machine: eight running
/// sums over interleaved elements, added up from first to last. Eight, so that compilers can use
/// vector registers without being allowed to reorder anything.
#[must_use]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0_f64; LANES];
    let (chunks_a, chunks_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (rest_a, rest_b) = (chunks_a.remainder(), chunks_b.remainder());
    for (a, b) in chunks_a.zip(chunks_b) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    for (lane, (a, b)) in rest_a.iter().zip(rest_b).enumerate() {
        sums[lane] += f64::from(*a) * f64::from(*b);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(values: &[f32]) -> Shard {
        let tensor = Tensor {
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        Shard([("w".to_owned(), tensor)].into())
    }

    #[test]
    fn adding_the_difference_leads_back_to_where_it_was_taken_from() {
        let (base, trained) = (shard(&[1.0, -2.0, 0.5]), shard(&[1.5, -2.25, 0.5]));
        assert_eq!(base.plus(&trained.difference(&base)), trained);
    }

    /// What should not happen: a score of something else than what is merged.
    #[test]
    fn the_sum_is_the_same_tensor_by_tensor_and_as_a_whole() {
        let mut base = shard(&[1.0, -2.0]);
        let kept = shard(&[7.0, 8.0, 9.0]).0.remove("w").unwrap();
        base.0.insert("kept".to_owned(), kept);
        let update = shard(&[0.25, 0.5]);
        let mut sums = Vec::new();
        let told: Result<(), ()> = base.each_sum(&update, |name, values| {
            sums.push((name.to_owned(), values.to_vec()));
            Ok(())
        });
        assert_eq!(told, Ok(()));
        let whole = base.plus(&update).0.into_iter();
        assert_eq!(
            sums,
            whole
                .map(|(name, sum)| (name, sum.values))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_norm_is_the_root_of_the_product_with_itself() {
        let (a, b) = (shard(&[3.0, 4.0]), shard(&[-6.0, -8.0]));
        assert_eq!(a.norm(), 5.0);
        assert_eq!(a.product(&b), -50.0);
    }
}
