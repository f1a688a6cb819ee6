"""Which packages there are, found in the folders: the rest is in pyproject.toml.

kernels/, probes/, apps/ and data/ stand at the top level but install inside `interp`: a top-level
package named `kernels` would overwrite the well-known one that transformers imports.
"""

from setuptools import find_packages, setup

INSIDE = ("apps", "data", "kernels", "probes")

setup(
    packages=[
        *find_packages(include=["interp", "interp.*"]),
        *(f"interp.{name}" for name in find_packages(include=INSIDE)),
    ],
    package_dir={"interp": "interp", **{f"interp.{name}": name for name in INSIDE}},
)
