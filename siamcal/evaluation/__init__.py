"""What methods are worth: metrics, intervals, comparisons, tables, figures and their review."""
