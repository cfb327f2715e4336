//! Text to model, all problems at once.
