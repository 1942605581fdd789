"""The results lake: results as Parquet in the object store, and the engine that queries them."""
