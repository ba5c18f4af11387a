"""What was measured, kept: records, the journal that is the truth, and MLflow as a view of it."""
