"""Numba pipelines for functions that only compiled code calls: they compile faster.

Numba optimises every function on its own and emits machine code for it, together with all that it
inlines, and the caller one level up does so again. Where only compiled code calls a function, its
machine code is never used: the caller links its LLVM module and optimises the whole. The pipelines
leave out the machine code, and with `optimise=False` the optimisation of the function on its own.
Functions that Python calls are compiled as Numba does it. Measured by
`studies/000_speed/compiling.py` on 2026-11-30 (Intel Xeon, Sapphire Rapids), in seconds of CPU: 96
became 40 for the streaming step (2.4 times), 16 became 11 for a selective scan (1.5 times).

The pipelines build on classes that Numba does not promise to keep (`JITCodeLibrary`). `pipeline`
returns None if a release lacks them, and all functions are then compiled as Numba does it.
"""

from __future__ import annotations

from typing import Any


def pipeline(*, optimise: bool) -> Any:
    """The class to give to `njit(pipeline_class=…)`; None if this Numba lacks what it builds on.

    optimise: optimise each function on its own, before its callers are.
    """
    try:
        from numba.core.codegen import JITCodeLibrary
        from numba.core.compiler import CompilerBase, DefaultPassBuilder
        from numba.core.compiler_machinery import LoweringPass, register_pass
        from numba.core.typed_passes import AnnotateTypes
    except ImportError:
        return None
    parts = ("_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals")
    if not all(hasattr(JITCodeLibrary, name) for name in parts):
        return None

    class LinkedLibrary(JITCodeLibrary):
        """The code of a function that is linked into its callers and not run by itself."""

        def _optimize_final_module(self) -> None:
            if optimise:
                super()._optimize_final_module()

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._finalized = True

        @property
        def codegen(self) -> Any:
            """The place where an environment is registered; code that is not emitted has none."""
            return NoEnvironment

        def get_pointer_to_function(self, name: str) -> int:
            """0, which tells Numba that there is no machine code of this name."""
            self._ensure_finalized()
            return 0

    class NoEnvironment:
        @staticmethod
        def set_env(name: str, env: Any) -> None:
            """Does nothing."""

    @register_pass(mutates_CFG=False, analysis_only=True)
    class LinkOnly(LoweringPass):
        """Creates the library that lowering fills."""

        _name = f"sensprobe_link_only_{optimise}"

        def __init__(self) -> None:
            LoweringPass.__init__(self)

        def run_pass(self, state: Any) -> bool:
            name = state.func_id.func_qualname
            state.library = LinkedLibrary(state.targetctx.codegen(), name)
            return True

    class Inlined(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
            passes.add_pass_after(LinkOnly, AnnotateTypes)
            passes.finalize()
            return [passes]

    return Inlined
