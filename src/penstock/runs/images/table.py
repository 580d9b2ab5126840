"""What AWS's images hold, tag by tag: Python version, pinned libraries, environment. Facts, each with its source.

`core` is what results depend on and is never given up silently; `rest` is what scripts import besides, as AWS pins it
where a wheel of that version exists (psutil 5.6.7, retrying 1.3.3 are source only: no version there).
`xgboost-cpu` stands in where it exists (2.1 and up): it is the same library without 700 MB of CUDA.

Source: github.com/aws/sagemaker-scikit-learn-container, github.com/aws/sagemaker-xgboost-container (branch or tag as
each row says: docker/<tag>/base/Dockerfile.cpu, requirements.txt), github.com/aws/deep-learning-containers
(docker/xgboost).
"""

from __future__ import annotations

from dataclasses import dataclass, field

# fmt: off
# Rows read better as rows.

_C_LOCALE = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "UTF-8",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
}
_SM = {
    "SM_INPUT": "/opt/ml/input",
    "SM_INPUT_TRAINING_CONFIG_FILE": "/opt/ml/input/config/hyperparameters.json",
    "SM_INPUT_DATA_CONFIG_FILE": "/opt/ml/input/config/inputdataconfig.json",
    "SM_CHECKPOINT_CONFIG_FILE": "/opt/ml/input/config/checkpointconfig.json",
    "SM_MODEL_DIR": "/opt/ml/model",
}
_SKLEARN_ENV = {
    **_C_LOCALE,
    **_SM,
    "SAGEMAKER_TRAINING_MODULE": "sagemaker_sklearn_container.training:main",
    "SAGEMAKER_SERVING_MODULE": "sagemaker_sklearn_container.serving:main",
}
_XGBOOST_ENV = {
    **_C_LOCALE,
    **_SM,
    "SAGEMAKER_TRAINING_MODULE": "sagemaker_xgboost_container.training:main",
    "SAGEMAKER_SERVING_MODULE": "sagemaker_xgboost_container.serving:main",
}

TOOLS = ("pip", "setuptools<80.9", "wheel")
"""In every environment: jobs install their own requirements, old libraries import
`pkg_resources`, which setuptools 82 has no more, and 80.9 warns of in each log."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One row: what an image of AWS holds, and what stands for it here."""

    repository: str
    tag: str
    framework: str
    python: str
    """The minor version wanted here."""
    image_python: str
    """The Python in AWS's image."""
    core: tuple[str, ...]
    rest: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    source: str = ""
    differs: str = ""
    """A lasting difference from the image, for the note."""
    index: str = ""
    """An index that has the packages of `core`, beside the machine's."""
    only: str = ""
    """The local version of the first package of `core` that alone is taken: another would bring gigabytes of CUDA."""
    suffix: str = ""
    """What the SDK appends to the tag (`-cpu-py3`)."""

    @property
    def uri(self) -> str:
        return f"{self.repository}:{self.tag}{self.suffix}"


_SKLEARN = "github.com/aws/sagemaker-scikit-learn-container"
_XGBOOST = "github.com/aws/sagemaker-xgboost-container"
_FLASK_1 = ("Flask==1.1.1", "itsdangerous==2.0.1", "Werkzeug==0.15.6")

SKLEARN = (
    Tag(
        "sagemaker-scikit-learn", "0.20.0", "sklearn", "3.7", "3.7.10",
        ("scikit-learn==0.20.0", "numpy==1.19.5", "pandas==0.25.3"),
        ("scipy", "boto3", "cryptography==35.0.0", "itsdangerous==2.0.1", "jinja2==2.10.2", "MarkupSafe==1.1.1",
         "Werkzeug==0.15.6", "pyarrow==0.14.1", "retrying==1.3.3", "six", "certifi==2023.7.22", "requests", "joblib",
         "psutil", "PyYAML", "tqdm"),
        _SKLEARN_ENV, f"{_SKLEARN} 0.20.0", suffix="-cpu-py3",
    ),
    Tag(
        "sagemaker-scikit-learn", "0.23-1", "sklearn", "3.7", "3.7.10",
        ("scikit-learn==0.23.2", "numpy==1.19.2", "pandas==1.1.3", "scipy==1.5.3"),
        ("boto3==1.24.17", "botocore==1.27.18", "cryptography==35.0.0", *_FLASK_1, "gunicorn==20.0.4", "jinja2==3.0.3",
         "MarkupSafe==2.1.1", "protobuf==3.20.2", "psutil", "pyarrow==1.0.0", "python-dateutil==2.8.1", "retrying",
         "six==1.15.0", "requests", "joblib", "PyYAML", "tqdm", "certifi"),
        _SKLEARN_ENV, f"{_SKLEARN} 0.23-1", suffix="-cpu-py3",
    ),
    Tag(
        "sagemaker-scikit-learn", "1.0-1", "sklearn", "3.8", "3.8.13",
        ("scikit-learn==1.0.2", "numpy==1.24.1", "pandas==1.1.3", "scipy==1.8.0"),
        ("boto3==1.28.57", "botocore>=1.31.57,<1.32", "cryptography==40.0.2", *_FLASK_1, "gunicorn==20.0.4",
         "jinja2==3.0.3", "MarkupSafe==2.1.1", "protobuf==3.20.2", "psutil", "pyarrow==14.0.1",
         "python-dateutil==2.8.1", "retrying", "six==1.15.0", "certifi==2023.7.22", "pyopenssl==23.1.0",
         "gevent==23.9.1", "requests", "joblib", "PyYAML", "tqdm", "setuptools==65.5.1", "wheel==0.38.1"),
        _SKLEARN_ENV, f"{_SKLEARN} 1.0-1", suffix="-cpu-py3",
    ),
    Tag(
        "sagemaker-scikit-learn", "1.2-1", "sklearn", "3.9", "3.9",
        ("scikit-learn==1.2.1", "numpy==1.24.1", "pandas==1.1.3", "scipy==1.8.0"),
        ("boto3==1.28.57", "botocore>=1.31.57,<1.32", "cryptography", "Flask==1.1.1", "itsdangerous==2.0.1",
         "Werkzeug==2.0.3", "gunicorn==23.0.0", "jinja2==3.0.3", "MarkupSafe==2.1.1", "protobuf==3.20.2", "psutil",
         "pyarrow==14.0.1", "python-dateutil==2.8.1", "retrying", "six==1.15.0", "urllib3==1.26.17", "gevent==23.9.1",
         "certifi", "requests", "joblib", "PyYAML", "tqdm"),
        _SKLEARN_ENV, f"{_SKLEARN} 1.2-1", suffix="-cpu-py3",
    ),
    Tag(
        "sagemaker-scikit-learn", "1.4-2", "sklearn", "3.10", "3.10",
        ("scikit-learn==1.4.2", "numpy==2.1.0", "pandas==2.2.3", "scipy==1.15.3"),
        ("boto3==1.28.57", "botocore>=1.31.57,<1.32", "cryptography", "Flask==1.1.1", "itsdangerous==2.0.1",
         "Werkzeug==2.0.3", "gunicorn==23.0.0", "jinja2==3.0.3", "MarkupSafe", "protobuf==3.20.2", "psutil",
         "pyarrow==17.0.0", "python-dateutil", "PyYAML==6.0.1", "retrying", "six==1.15.0", "urllib3==1.26.17",
         "gevent==23.9.1", "wheel==0.45.1", "certifi", "requests", "joblib", "tqdm"),
        _SKLEARN_ENV, f"{_SKLEARN} v1.4.2 (pandas>=2.0.0 and scipy>=1.9.0 there)", suffix="-cpu-py3",
    ),
    Tag(
        "sagemaker-scikit-learn", "1.4-2-py312", "sklearn", "3.12", "3.12",
        ("scikit-learn==1.4.2", "numpy==2.1.0", "pandas==2.3.2", "scipy==1.15.3"),
        ("boto3==1.28.57", "botocore>=1.31.57,<1.32", "cryptography", "Flask==1.1.1", "itsdangerous==2.0.1",
         "Werkzeug==2.0.3", "gunicorn==23.0.0", "jinja2==3.0.3", "MarkupSafe", "protobuf==3.20.2", "psutil",
         "pyarrow==17.0.0", "python-dateutil", "PyYAML==6.0.1", "retrying", "six==1.16.0", "urllib3==1.26.17",
         "gevent==23.9.1", "setuptools==80.9.0", "wheel==0.45.1", "certifi", "requests", "joblib", "tqdm"),
        _SKLEARN_ENV, f"{_SKLEARN} v1.4-2-py312 (scipy>=1.9.0 there)",
    ),
)

_XGB_OLD = ("PyYAML==5.4.1", "boto3==1.17.52", "botocore==1.20.52", *_FLASK_1, "gunicorn==19.10.0", "psutil",
            "retrying")

XGBOOST = (
    Tag(
        "sagemaker-xgboost", "0.90-1", "xgboost", "3.7", "3.7.10",
        ("xgboost==0.90", "scikit-learn==0.22.1", "numpy==1.18.1", "pandas==0.25.3", "scipy==1.4.1"),
        ("PyYAML==5.4.1", "boto3==1.10.47", "botocore==1.13.47", *_FLASK_1, "jinja2==2.11.3", "MarkupSafe==1.1.1",
         "cryptography==3.4.6", "gunicorn<20", "matplotlib==3.1.2", "psutil==5.6.7", "pyarrow==1.0.0",
         "python-dateutil==2.8.0", "requests", "retrying==1.3.3", "urllib3==1.25.9", "protobuf==3.20.1", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 0.90-1 (scipy 1.2.2 there)", suffix="-cpu-py3",
        differs="scipy 1.4.1 instead of 1.2.2",
    ),
    Tag(
        "sagemaker-xgboost", "0.90-2", "xgboost", "3.7", "3.6.13",
        ("xgboost==0.90", "scikit-learn==0.23.1", "numpy==1.18.4", "pandas==1.0.4", "scipy==1.4.1"),
        ("PyYAML==5.4.1", "boto3==1.13.21", "botocore==1.16.21", *_FLASK_1, "jinja2==2.11.3", "MarkupSafe==1.1.1",
         "cryptography==3.4.6", "gunicorn<20",
         "matplotlib==3.2.1", "psutil", "pyarrow==1.0.0", "python-dateutil==2.8.0", "requests", "retrying",
         "urllib3==1.25.9", "protobuf==3.20.1", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 0.90-2 (scipy 1.2.2, pyarrow 0.14.1, Python 3.6 there)", suffix="-cpu-py3",
        differs="Python 3.7 instead of 3.6, scipy 1.4.1 instead of 1.2.2",
    ),
    Tag(
        "sagemaker-xgboost", "1.0-1", "xgboost", "3.7", "3.7.10",
        ("xgboost==1.0.0", "scikit-learn==0.24.1", "numpy==1.19.5", "pandas==1.1.3", "scipy==1.2.2"),
        (*_XGB_OLD, "Pillow==9.1.1", "cryptography==3.4.6", "matplotlib==3.3.2", "protobuf==3.20.1",
         "python-dateutil==2.8.0", "requests==2.25.1", "urllib3==1.26.5", "wheel==0.36.2", "jinja2==2.11.3",
         "MarkupSafe==1.1.1", "pyarrow==0.14.1", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 1.0-1", suffix="-cpu-py3",
    ),
    Tag(
        "sagemaker-xgboost", "1.2-1", "xgboost", "3.7", "3.7.10",
        ("xgboost==1.2.0", "scikit-learn==0.23.2", "numpy==1.21.6", "pandas==1.1.3", "scipy==1.5.3"),
        (*_XGB_OLD, "Pillow==9.1.1", "cryptography==35.0.0", "matplotlib==3.3.2", "protobuf==3.20.1",
         "python-dateutil==2.8.0", "requests==2.25.1", "urllib3==1.26.5", "wheel==0.35.1", "jinja2==3.0.3",
         "MarkupSafe==2.1.1", "pyarrow==1.0.0", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 1.2-1",
    ),
    Tag(
        "sagemaker-xgboost", "1.2-2", "xgboost", "3.7", "3.7.10",
        ("xgboost==1.2.0", "scikit-learn==0.23.2", "numpy==1.21.6", "pandas==1.1.3", "scipy==1.5.3"),
        (*_XGB_OLD, "Pillow==9.1.1", "cryptography==35.0.0", "matplotlib==3.3.2", "protobuf==3.20.1",
         "python-dateutil==2.8.0", "requests==2.25.1", "urllib3==1.26.5", "wheel==0.35.1", "jinja2==3.0.3",
         "MarkupSafe==2.1.1", "pyarrow==1.0.0", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 1.2-2",
    ),
    Tag(
        "sagemaker-xgboost", "1.3-1", "xgboost", "3.7", "3.7.10",
        ("xgboost==1.3.3", "scikit-learn==0.24.1", "numpy==1.21.6", "pandas==1.2.4", "scipy==1.6.2"),
        (*_XGB_OLD, "Pillow==9.1.1", "cryptography==35.0.0", "matplotlib==3.4.1", "protobuf==3.20.1",
         "python-dateutil==2.8.1", "requests==2.25.1", "urllib3==1.26.5", "wheel==0.36.2", "jinja2==2.10.2",
         "MarkupSafe==1.1.1", "pyarrow==1.0.0", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 1.3-1",
    ),
    Tag(
        "sagemaker-xgboost", "1.5-1", "xgboost", "3.8", "3.8.13",
        ("xgboost==1.5.2", "scikit-learn==0.24.1", "numpy==1.24.4", "pandas==1.5.3", "scipy==1.8.0"),
        (*_XGB_OLD, "Pillow==9.1.1", "cryptography==39.0.1", "dask==2022.11.1", "matplotlib==3.4.1", "protobuf==3.20.1",
         "pyopenssl==23.1.0", "python-dateutil==2.8.2", "requests==2.27.0", "urllib3==1.26.5", "wheel==0.36.2",
         "jinja2==2.11.3", "MarkupSafe==1.1.1", "certifi==2023.7.22", "gevent==23.9.1", "pyarrow==14.0.1", "joblib",
         "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 1.5-1",
    ),
    Tag(
        "sagemaker-xgboost", "1.7-1", "xgboost", "3.9", "3.9",
        ("xgboost==1.7.4", "scikit-learn==0.24.1", "numpy==1.24.1", "pandas==1.2.4", "scipy==1.8.0"),
        ("PyYAML==5.4.1", "boto3==1.17.52", "botocore==1.20.52", *_FLASK_1, "gunicorn==23.0.0", "psutil", "retrying",
         "Pillow==9.1.1", "cryptography==39.0.1", "dask==2022.11.1", "matplotlib==3.4.1", "numba==0.58.1",
         "protobuf==3.20.1", "python-dateutil==2.8.1", "requests==2.29.0", "urllib3==1.26.5", "wheel==0.36.2",
         "jinja2==2.11.3", "MarkupSafe==1.1.1", "certifi==2023.7.22", "gevent==23.9.1", "pyarrow==14.0.1", "joblib",
         "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} 1.7-1",
    ),
    Tag(
        "sagemaker-xgboost", "1.7-1-1", "xgboost", "3.10", "3.10",
        ("xgboost==1.7.4", "scikit-learn==1.0.2", "numpy==1.24.1", "pandas==1.4.4", "scipy==1.9.3"),
        ("PyYAML==6.0.1", "boto3==1.17.52", "botocore==1.20.52", *_FLASK_1, "gunicorn==23.0.0", "psutil", "retrying",
         "Pillow==9.1.1", "cryptography==39.0.1", "dask==2022.11.1", "matplotlib==3.6.3", "numba==0.58.1",
         "protobuf==3.20.1", "python-dateutil==2.8.1", "requests==2.29.0", "urllib3==1.26.5", "wheel==0.36.2",
         "jinja2==3.0.3", "MarkupSafe", "certifi==2023.7.22", "gevent==23.9.1", "pyarrow==14.0.1", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} v1.7-1-1",
    ),
    Tag(
        "sagemaker-xgboost", "3.0-5", "xgboost", "3.10", "3.10",
        ("xgboost-cpu==3.0.5", "scikit-learn==1.5.2", "numpy==2.1.0", "pandas==2.2.3", "scipy==1.15.0"),
        ("PyYAML==6.0.1", "boto3==1.17.52", "botocore==1.20.52", *_FLASK_1, "gunicorn==23.0.0", "psutil",
         "retrying", "Pillow==9.1.1", "cryptography==45.0.5", "dask[dataframe]==2024.11.2", "matplotlib==3.9.2",
         "numba==0.61.0", "protobuf==3.20.3", "python-dateutil==2.8.2", "requests==2.32.3", "urllib3==1.26.5",
         "setuptools<81", "wheel==0.45.1", "jinja2==3.0.3", "MarkupSafe", "certifi==2023.7.22", "gevent==23.9.1",
         "pyarrow==22.0.0", "joblib", "tqdm"),
        _XGBOOST_ENV, f"{_XGBOOST} v3.0-5", differs="XGBoost without CUDA (xgboost-cpu)",
    ),
    Tag(
        "sagemaker-xgboost", "3.2-0", "xgboost", "3.12", "3.12",
        ("xgboost-cpu==3.2.0", "scikit-learn==1.8.0", "numpy==2.1.0", "pandas==2.2.3", "scipy==1.15.0"),
        ("PyYAML==6.0.1", "boto3==1.38.0", "botocore==1.38.0", "Flask==3.1.3", "Werkzeug==3.1.8", "gunicorn==25.3.0",
         "psutil==7.0.0", "retrying", "Pillow", "cryptography", "dask[dataframe]==2026.1.1", "matplotlib==3.10.9",
         "numba==0.65.1", "protobuf==3.20.3", "python-dateutil==2.9.0", "requests", "urllib3", "setuptools>=80.9,<81",
         "certifi==2025.4.26", "gevent==26.4.0", "pyarrow==22.0.0", "joblib", "tqdm"),
        _XGBOOST_ENV, "github.com/aws/deep-learning-containers docker/xgboost (pyproject.toml)",
        differs="XGBoost without CUDA (xgboost-cpu)",
    ),
)

_BASE = "docs.aws.amazon.com/sagemaker/latest/dg/notebooks-available-images.html: holds boto3 and the AWS CLI"
BASE_PYTHON = tuple(
    Tag(f"sagemaker-base-python-{short}", "1.0", "python", minor, minor, (),
        ("boto3", "botocore", "requests", "awscli"), _C_LOCALE, _BASE)
    for short, minor in (("38", "3.8"), ("310", "3.10"), ("311", "3.11"), ("312", "3.12"))
)

LAMBDA = tuple(
    Tag("lambda/python", minor, "lambda", minor, minor, (), ("boto3", "botocore", "urllib3"), {},
        "docs.aws.amazon.com/lambda/latest/dg/lambda-python.html: holds boto3 and botocore")
    for minor in ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
)

_PYTORCH_ENV = {**_C_LOCALE, **_SM, "DLC_CONTAINER_TYPE": "training",
                "SAGEMAKER_TRAINING_MODULE": "sagemaker_pytorch_container.training:main"}
_PYTORCH_REST = ("boto3", "click", "cloudpickle", "cryptography", "fsspec", "h5py", "imageio", "joblib", "packaging",
                 "pandas", "Pillow", "psutil", "PyYAML", "requests", "scikit-learn", "scipy", "tqdm")
_PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def _pytorch(
    tag: str, python: str, torch: str, vision: str, numpy: str, audio: str = "", named: bool = True
) -> tuple[Tag, ...]:
    """The rows of one version: its training and its inference image, which hold the same libraries.

    Takes: audio, torchaudio's version where it is not torch's; named, whether the minor version's tag is this one.
    """
    short = tag.rpartition(".")[0]
    return tuple(
        Tag(f"pytorch-{use}", version, "pytorch", python, python,
            (f"torch=={torch}+cpu", f"torchvision=={vision}+cpu", f"torchaudio=={audio or torch}+cpu"),
            (numpy, *_PYTORCH_REST), _PYTORCH_ENV,
            f"github.com/aws/deep-learning-containers pytorch/training/docker/{short}/py3/Dockerfile.cpu",
            index=_PYTORCH_INDEX, only="cpu", suffix=f"-cpu-py{python.replace('.', '')}")
        for use in ("training", "inference") for version in ((tag, short) if named else (tag,))
    )


PYTORCH = (
    *_pytorch("1.13.1", "3.9", "1.13.1", "0.14.1", "numpy<2", audio="0.13.1"),
    *_pytorch("2.0.0", "3.10", "2.0.0", "0.15.1", "numpy<2", audio="2.0.1", named=False),
    *_pytorch("2.0.1", "3.10", "2.0.1", "0.15.2", "numpy<2", audio="2.0.2"),
    *_pytorch("2.1.0", "3.10", "2.1.0", "0.16.0", "numpy<2"),
    *_pytorch("2.2.0", "3.10", "2.2.0", "0.17.0", "numpy<2"),
    *_pytorch("2.3.0", "3.11", "2.3.0", "0.18.0", "numpy<2"),
    *_pytorch("2.4.0", "3.11", "2.4.0", "0.19.0", "numpy<2"),
    *_pytorch("2.5.1", "3.11", "2.5.1", "0.20.1", "numpy<2"),
    *_pytorch("2.6.0", "3.12", "2.6.0", "0.21.0", "numpy"),
    *_pytorch("2.7.0", "3.12", "2.7.0", "0.22.0", "numpy", named=False),
    *_pytorch("2.7.1", "3.12", "2.7.1", "0.22.1", "numpy"),
    *_pytorch("2.8.0", "3.12", "2.8.0", "0.23.0", "numpy"),
)

TAGS = (*SKLEARN, *XGBOOST, *PYTORCH, *BASE_PYTHON, *LAMBDA)

ML = ("numpy>=1.26", "pandas>=2.2", "scikit-learn>=1.5", "xgboost-cpu>=3.0", "scipy", "pyarrow>=18", "boto3",
      "requests", "joblib", "PyYAML")
"""The default environment: what Penstock's extra `ml` asks for, on the Python that the server runs on."""

PYTHON_ENV = _C_LOCALE
PYTHON_SOURCE = "hub.docker.com/_/python: the Python of that version, with pip"
