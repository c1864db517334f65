//! A function applied to every leaf of a parameter tree.

use super::{
    Attention, FeedForward, GroupedAttention, LatentAttention, LatentQueries, Layer, Mixture,
    Parameters, SwiGlu,
};

/// Applies a function to every leaf, in the order of [`Parameters::build`]. Written once and expanded for
/// owned, shared and mutable trees, so that the three cannot come to visit in different orders.
macro_rules! map_in_build_order {
    ($map:ident, $tree:ident: $receiver:ty => $leaf:ty) => {
        impl<'a, T: 'a> Parameters<T> {
            pub(crate) fn $map<U>(
                $tree: $receiver,
                f: &mut impl FnMut($leaf) -> U,
            ) -> Parameters<U> {
                let Self {
                    embedding,
                    layers,
                    norm,
                    head,
                } = $tree;
                Parameters {
                    embedding: f(embedding),
                    layers: layers.into_iter().map(|layer| layer.$map(f)).collect(),
                    norm: f(norm),
                    head: head.into_iter().map(f).next(),
                }
            }
        }

        impl<'a, T: 'a> Layer<T> {
            pub(crate) fn $map<U>($tree: $receiver, f: &mut impl FnMut($leaf) -> U) -> Layer<U> {
                let Self {
                    input_norm,
                    attention,
                    middle_norm,
                    feed_forward,
                } = $tree;
                Layer {
                    input_norm: f(input_norm),
                    attention: match attention {
                        Attention::Latent(latent) => Attention::Latent(latent.$map(f)),
                        Attention::Grouped(grouped) => Attention::Grouped(grouped.$map(f)),
                    },
                    middle_norm: f(middle_norm),
                    feed_forward: match feed_forward {
                        FeedForward::Dense(network) => FeedForward::Dense(network.$map(f)),
                        FeedForward::Mixture(mixture) => {
                            FeedForward::Mixture(Box::new(mixture.$map(f)))
                        }
                    },
                }
            }
        }

        impl<'a, T: 'a> LatentAttention<T> {
            fn $map<U>($tree: $receiver, f: &mut impl FnMut($leaf) -> U) -> LatentAttention<U> {
                let Self {
                    queries,
                    compress,
                    latent_norm,
                    expand,
                    output,
                } = $tree;
                LatentAttention {
                    queries: match queries {
                        LatentQueries::Direct(queries) => LatentQueries::Direct(f(queries)),
                        LatentQueries::LowRank {
                            compress,
                            norm,
                            expand,
                        } => LatentQueries::LowRank {
                            compress: f(compress),
                            norm: f(norm),
                            expand: f(expand),
                        },
                    },
                    compress: f(compress),
                    latent_norm: f(latent_norm),
                    expand: f(expand),
                    output: f(output),
                }
            }
        }

        impl<'a, T: 'a> GroupedAttention<T> {
            fn $map<U>($tree: $receiver, f: &mut impl FnMut($leaf) -> U) -> GroupedAttention<U> {
                let Self {
                    queries,
                    keys,
                    values,
                    norms,
                    output,
                } = $tree;
                GroupedAttention {
                    queries: f(queries),
                    keys: f(keys),
                    values: f(values),
                    norms: match norms {
                        Some([query, key]) => Some([f(query), f(key)]),
                        None => None,
                    },
                    output: f(output),
                }
            }
        }

        impl<'a, T: 'a> Mixture<T> {
            fn $map<U>($tree: $receiver, f: &mut impl FnMut($leaf) -> U) -> Mixture<U> {
                let Self {
                    router,
                    bias,
                    experts,
                    shared,
                } = $tree;
                Mixture {
                    router: f(router),
                    bias: bias.into_iter().map(&mut *f).next(),
                    experts: experts
                        .into_iter()
                        .map(|expert| expert.into_iter().map(|network| network.$map(f)).next())
                        .collect(),
                    shared: shared.into_iter().map(|network| network.$map(f)).next(),
                }
            }
        }

        impl<'a, T: 'a> SwiGlu<T> {
            fn $map<U>($tree: $receiver, f: &mut impl FnMut($leaf) -> U) -> SwiGlu<U> {
                let Self { gate, up, down } = $tree;
                SwiGlu {
                    gate: f(gate),
                    up: f(up),
                    down: f(down),
                }
            }
        }
    };
}

map_in_build_order!(map, self: Self => T);
map_in_build_order!(map_ref, self: &'a Self => &'a T);
map_in_build_order!(map_mut, self: &'a mut Self => &'a mut T);
