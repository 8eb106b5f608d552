# Short names for the scripts of this repository: https://just.systems
#
# None of them is needed: each line of a recipe also works by itself.

# List the recipes
default:
    @just --list --unsorted

# Format, and check what needs no test: lints, scripts, spelling, documentation
check:
    cargo fmt
    cargo clippy --locked --all-targets -- -D warnings
    cargo clippy --locked --all-targets --features otlp -- -D warnings
    tests/lint
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Unit tests, then the rules about sources, documents and the reference: under a minute
test *ARGUMENTS:
    cargo test --locked --lib {{ ARGUMENTS }}
    cargo test --locked --test it -- layers:: documents::

# End-to-end tests of a module (just e2e reload::), or all that need no further package
e2e *NAMES:
    {{ if NAMES == "" { "tests/run --fast" } else { "cargo test --locked --test it -- " + NAMES } }}

# Everything that CI runs; installs Debian packages, and says which before it does
all:
    tests/run

# Fuzz each target for some seconds (just fuzz 600 host)
fuzz SECONDS="60" *TARGETS:
    fuzz/run {{ SECONDS }} {{ TARGETS }}

# Time the steps of a request (just bench parse), see benches/README.md
bench *NAMES:
    cargo bench --locked --bench steps -- {{ NAMES }}

# Count the instructions of the hot path, and compare them with benches/instructions.txt
instructions *OPTIONS:
    benches/instructions {{ OPTIONS }}

# Build the documentation of the code, private items too, and open it
docs:
    cargo doc --locked --no-deps --document-private-items --open

# Which lines the tests reach
coverage *ARGUMENTS:
    tests/coverage {{ ARGUMENTS }}

# Check that it compiles for 64-bit ARM
aarch64:
    tests/aarch64
