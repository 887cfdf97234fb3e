"""Methods of torch's optimizers without torch's compiler.

Torch has its compiler keep out of them, and imports it to tell it so, at their first call: 70 MiB and a second.
"""

from __future__ import annotations

import functools
import sys
from typing import Any


def without_compiler(method: Any) -> Any:
    """Such a method that does without, unless the compiler is imported anyway."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        is_imported = "torch._dynamo" in sys.modules
        return (method if is_imported else getattr(method, "__wrapped__", method))(self, *args, **kwargs)

    return call
