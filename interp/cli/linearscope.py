"""`interp linearscope …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..linearscope.explain import BiasConfig, ExplainConfig
from ..linearscope.responses import ImpulseConfig, SvdConfig
from ..linearscope.sketch import SketchConfig
from ..linearscope.tokens import TokensConfig
from .common import study_command

linearscope = SubcommandApp()

study_command(linearscope, "explain", ExplainConfig, "classes.parquet")
study_command(linearscope, "bias", BiasConfig, "pictures.parquet")
study_command(linearscope, "svd", SvdConfig, "values.parquet")
study_command(linearscope, "impulse", ImpulseConfig, "places.parquet")
study_command(linearscope, "tokens", TokensConfig, "tokens.parquet")
study_command(linearscope, "train-sketch", SketchConfig, "held.parquet")
