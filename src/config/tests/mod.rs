//! Whole files in, problems and models out.
