"""What other libraries do not promise, in one place."""

# First and whole: when it is complete, `export.register` imports the quantiser, which needs all of `compat.loading`.
import transformers.modeling_utils  # noqa: F401
