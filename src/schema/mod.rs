//! JSON Schema: the one user of `jsonschema`.
