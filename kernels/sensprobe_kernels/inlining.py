"""A Numba pipeline for functions that only compiled code calls, which halves what compiling takes.

Numba optimises every function on its own and emits machine code for it, with everything that it
inlines, and a caller one level up does so again. Of a function that nothing but compiled code calls
no machine code is used: its caller links its LLVM module and optimises the whole. The pipelines
here leave that out, and `optimise=False` the optimisation on its own as well. What is called from
Python is compiled as ever. Measured on the packed step (`studies/000_speed/compiling.py`): 109 s
became 48 s.

They build on classes that Numba does not promise to keep (`JITCodeLibrary`), so `pipeline` gives
None where a release has them no longer, and functions are then compiled as Numba does it.
"""

from __future__ import annotations

from typing import Any


def pipeline(*, optimise: bool) -> Any:
    """The compiler class to hand to `njit(pipeline_class=…)`; None where this Numba has no place
    for it. `optimise` says whether a function is optimised before its callers are."""
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
        """Code of one function, to be linked into its callers' and not run by itself."""

        def _optimize_final_module(self) -> None:
            if optimise:
                super()._optimize_final_module()

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._finalized = True

        @property
        def codegen(self) -> Any:
            """Where an environment would be registered; code that is not emitted has none."""
            return NoEnvironment

        def get_pointer_to_function(self, name: str) -> int:
            """0, as Numba says where there is no machine code of a name."""
            self._ensure_finalized()
            return 0

    class NoEnvironment:
        @staticmethod
        def set_env(name: str, env: Any) -> None:
            """Nothing to set."""

    @register_pass(mutates_CFG=False, analysis_only=True)
    class LinkOnly(LoweringPass):
        """Makes the library that lowering then fills."""

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
