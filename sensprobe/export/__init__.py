"""Artefacts: a plan and the weights packed under it, in a folder that needs no code to be read.

model.safetensors   packed codes, scales and zero points; as many bytes as `cost` says
plan.json           the scheme of every site that is not exact, by its full name
config.json         family, sizes, fingerprints, how each tensor unpacks (config.schema.json)
README.md           the model card
tokenizer.json      of a language model that came with one, as it came
"""

from sensprobe.checkpoints.exported import PLAN, WEIGHTS, is_artefact
from sensprobe.export.card import CardFacts, HandFacts, UniformFacts
from sensprobe.export.document import TOKENIZER
from sensprobe.export.read import Artefact, load_artefact
from sensprobe.export.write import ExportResult, export_model

__all__ = [
    "PLAN",
    "TOKENIZER",
    "WEIGHTS",
    "Artefact",
    "CardFacts",
    "ExportResult",
    "HandFacts",
    "UniformFacts",
    "export_model",
    "is_artefact",
    "load_artefact",
]
