# Fetches the public packages that hold recorded metadata and vectors. Sourced by the scripts beside it.
# Versions are pinned and archives checked, so what is made from them is reproducible.

set -euo pipefail

# fetch_bittensor VERSION SHA256 FOLDER: unpacks the Python package's source distribution.
fetch_bittensor() {
    local version=$1 sum=$2 folder=$3
    local archive=$folder/bittensor-$version.tar.gz
    python3 -m pip download --quiet --no-deps --no-binary bittensor \
        --dest "$folder" "bittensor==$version"
    echo "$sum  $archive" | sha256sum --check --quiet
    tar --extract --gzip --file "$archive" --directory "$folder"
}

# fetch_bittensor_rs VERSION SHA256 FOLDER: unpacks the Rust crate.
fetch_bittensor_rs() {
    local version=$1 sum=$2 folder=$3
    local archive=$folder/bittensor-rs-$version.crate
    curl --silent --show-error --fail --location --output "$archive" \
        "https://static.crates.io/crates/bittensor-rs/bittensor-rs-$version.crate"
    echo "$sum  $archive" | sha256sum --check --quiet
    tar --extract --gzip --file "$archive" --directory "$folder"
}

SUM_11_0_0=b53c5030d88fac9888f7acbca8069985d7f609021ce634c11f5db14af4e788d5
SUM_11_1_0=97be7e9d523ca36d93eddc7b96318b42a7bbd9512b53c757c5807a7dafb4371d
SUM_11_3_0=8ce05029a712866048c6cf3e3d5df1592ac896175f5b4227f63044b7e7b7edb3
SUM_RS_0_1_1=a2f600a1d89e5e520b9fd57650401acb0cb060312daf8d4b2ae3791ba7cbcfea
