"""A plugin whose import fails."""

import harness_ext_of_long_ago  # noqa: F401
