"""Run by `test_split`: a model over two devices that are none, in a process of its own, since torch
has one such backend a process. Prints where logits and activations are: plain, read, edited
and linked."""

import torch
from accelerate import dispatch_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from interp.model.backends.native import NativeBackend
from interp.model.batch import Batch
from interp.model.conformance import tiny_model
from interp.model.devices import home_of
from interp.model.edits import Edit, patch
from interp.model.families import read_spec
from interp.model.prompting import Prompting
from interp.model.site import Site
from interp.model.subject import Subject

PLACES = {
    **dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.layers.0"), "fake:0"),
    **dict.fromkeys(("model.layers.1", "model.norm", "lm_head"), "fake:1"),
}


def split_model():
    model = tiny_model("llama").eval().requires_grad_(False)
    for name, module in model.named_modules():
        at = next((at for place, at in PLACES.items() if name.startswith(place)), "fake:0")
        for own, weight in list(module.named_parameters(recurse=False)):
            setattr(module, own, torch.nn.Parameter(weight.to(at), requires_grad=False))
        for own, held in list(module.named_buffers(recurse=False)):
            setattr(module, own, held.to(at))
    dispatch_model(model, PLACES)
    return model


def where(tensors):
    (one,) = {str(x.device) for x in tensors}
    print(one)  # noqa: T201


backend_registration._setup_privateuseone_for_python_backend("fake")
with FakeTensorMode():
    model = split_model()
    assert {str(weight.device) for weight in model.parameters()} == {"fake:0", "fake:1"}
    spec, home = read_spec(model.config.to_dict()), home_of(model)
    subject = Subject(NativeBackend(model, spec), spec, Prompting(None), home)
    ids = torch.ones(2, 5, dtype=torch.long, device=home)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool))
    where([subject.logits(batch)])
    found = subject.capture(batch, subject.sites)
    where(found.values())

    def plus(name, where="all"):
        """Adds a vector of the subject's own device."""
        site = Site.parse(name)
        own = torch.ones(found[site.whole].shape[-1], device=home)
        return Edit(site, lambda h: h + own, where)

    names = ("1.resid_mid", "1.head_z", "1.head_z.2", "1.mlp_post", "final_norm_in", "logits")
    given = patch(Site("mlp_out", 1), found[Site("mlp_out", 1)], "last")
    masked = plus("1.resid_pre", batch.mask)
    with subject.edited(*map(plus, names), given, masked):
        where([subject.logits(batch)])
    where(subject.linked(batch, ["0.resid_post", "1.resid_post"]).values())
