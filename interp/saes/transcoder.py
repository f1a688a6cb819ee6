"""Transcoders in training: sae-lens' SAEs whose target is another site than their input.

    z = encode(x)      y_hat = z W_dec + b_dec      loss: |y - y_hat|^2 and the kind's own terms

sae-lens reads transcoders but trains none, and its trainer hands an SAE one tensor a step. So both
sites come side by side, [n, d_in + d_out]: the encoder reads the left, every error is of the right.
Source: Dunefsky et al., 'Transcoders find interpretable LLM feature circuits' (2024).
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


@cache
def transcoding(kind: type) -> type:
    """A training class of sae-lens as one of transcoders: `transcoding(C)(config, d_out)`."""

    class Transcoding(kind):  # type: ignore[misc, valid-type]
        mse_loss_fn: Any

        def __init__(self, config: Any, d_out: int) -> None:
            self._d_out = d_out
            super().__init__(config)
            plain = self.mse_loss_fn
            self.mse_loss_fn = lambda y_hat, both: plain(y_hat, target_of(self, both))

        def process_sae_in(self, sae_in: Tensor) -> Tensor:
            """The left alone, whose bias is the encoder's own: b_dec has the other width."""
            left = self.hook_sae_input(sae_in[..., : self.cfg.d_in].to(self.dtype))
            inputs: Tensor = self.run_time_activation_norm_fn_in(left)
            return inputs

        def initialize_weights(self) -> None:
            """The encoder begins as an SAE's; the decoder with random rows of the same length."""
            super().initialize_weights()
            about = {"dtype": self.dtype, "device": self.device}
            rows = nn.init.kaiming_uniform_(torch.empty(self.cfg.d_sae, self._d_out, **about))
            rows = nn.functional.normalize(rows, dim=1) * self.cfg.decoder_init_norm
            self.W_dec = nn.Parameter(rows)
            self.b_dec = nn.Parameter(torch.zeros(self._d_out, **about))

        def calculate_aux_loss(self, step_input: Any, **given: Any) -> dict[str, Tensor]:
            step = dataclasses.replace(step_input, sae_in=target_of(self, step_input.sae_in))
            losses: dict[str, Tensor] = super().calculate_aux_loss(step_input=step, **given)
            return losses

    return Transcoding


def target_of(sae: Any, x: Tensor) -> Tensor:
    """Of what a training SAE is fed [n, d_in] or a transcoder [n, d_in + d_out]: what it is to
    give, [n, d_in] or [n, d_out]."""
    return x if x.shape[-1] == sae.cfg.d_in else x[..., sae.cfg.d_in :]
