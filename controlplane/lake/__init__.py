"""The results lake: results in columns, and questions in SQL over them. Parquet and DuckDB are known here alone."""
