"""The record of a model family: all that the rest of the package asks of one.

Sizes, sites, products and parameters are known without torch; functions that compute with tensors
stand in a module of their own, which is imported when one of them is first called (`deferred`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from sensprobe.models.frame import Products, Shapes
from sensprobe.models.layouts import Layout
from sensprobe.plans.sites import Site

ADDED = "added"
"""Metadata of a field that a config was given after files of models were written."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The parts that a model's name was made of before names were made of files (see
    `checkpoints.identity`); families that are newer have none.

    `fields` are those that the config had, in this order. `weights(weights, parameters, config)`
    returns the weights as they were computed then.
    """

    fields: str
    weights: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Pruning:
    """How state variables of a time-invariant family are taken away; C reads them.

    `shares(product, config)` adds numbers of the shape of C, complex ones as pairs, up to one for
    each state variable: (rows, n), rows as A has them. `kept(parameters, config, chosen)` returns
    the parameters and the config of the model that keeps the state variables chosen of every layer:
    numbers (rows, m) in rising order.

    `kernels(parameters, config, chosen)` does the same for whole kernels, where each row of A is
    the recurrence of one head: rows (k,) of every layer in rising order. `unread(values, config,
    layer)` returns what out_proj reads (b, l, h) without any kernel of a layer, from weights and
    activations by site name.
    """

    shares: Callable[..., Any]
    kept: Callable[..., Any]
    kernels: Callable[..., Any] | None = None
    unread: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model family.

    `config` is a frozen dataclass of sizes and choices that raises UsageError for impossible ones.
    Four functions take a config: `sites` returns the sites by name, in the order the forward pass
    meets them; `products` the multiplications of a step, (what is stored, what it multiplies, how
    many); `parameter_shapes` the shape of every trained parameter, by its name in a checkpoint.

    `deploy(parameters, config)` returns the weights by site name from tensors in `precision`, a
    torch dtype. `model(config, weights)` returns the model that runs them (see `models.Model`).
    `initial(config, (dt_min, dt_max), seed)` returns the parameters that training starts from.

    `discretized(parameters, config)` returns parameters and config of the same model whose
    parameters are what a deployment holds; families without it are not time-invariant.

    `exact_mode` is the mode that computes exact states fastest, forward and backward: training at
    full precision runs in it.

    `lower(builder, config)` writes the streaming step and returns the register of its outputs (see
    `models.lowering`); without it a model steps by its reference. `layouts` say how other packages
    store its models. `pruning` says how state variables are taken away, where that is known.
    """

    name: str
    config: type
    sites: Callable[[Any], dict[str, Site]]
    products: Callable[[Any], Products]
    parameter_shapes: Callable[[Any], Shapes]
    deploy: Callable[..., Any]
    model: Callable[..., Any]
    initial: Callable[..., Any]
    discretized: Callable[..., Any] | None = None
    precision: str = "float32"
    exact_mode: str = "recurrent"
    lower: Callable[..., Any] | None = None
    layouts: tuple[Layout, ...] = ()
    pruning: Pruning | None = None
    earlier: Earlier | None = None


def config_document(config: Any) -> dict[str, Any]:
    """The fields of a config as files hold them: without those that were `ADDED` where they have
    their default, so that files of models without them stay what they are."""
    return {
        f.name: value
        for f in fields(config)
        if (value := getattr(config, f.name)) != f.default or ADDED not in f.metadata
    }


def deferred(module: str, name: str) -> Callable[..., Any]:
    """The function or class of a module, which is imported when it is first called."""

    def call(*args: Any, **options: Any) -> Any:
        return getattr(import_module(module), name)(*args, **options)

    return call
