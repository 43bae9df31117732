"""Probabilities: computed once and kept, or found where another tool left them.

The public names are those of ``__init__.pyi``; each is imported when it is first used: a plan waits for no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
