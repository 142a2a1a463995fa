"""The configuration: a TOML file, the environment, flags; later ones win.

    # longspan.toml                # environment                      # flag
    [limits]
    document_bytes = 1000000       LONGSPAN_LIMITS__DOCUMENT_BYTES    --limits.document-bytes

This is the only place that reads the environment. A name that means nothing is an error
wherever it stands.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    CliImplicitFlag,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from longspan.server.auth.settings import AuthSettings
from longspan.server.errors import ConfigError
from longspan.server.limits import Limits
from longspan.server.metrics.settings import MetricsSettings
from longspan.server.tls.settings import TlsSettings
from longspan.server.tracing.settings import TracingSettings

PREFIX = "LONGSPAN_"
# The client's own variables, which a shared environment may hold.
CLIENT_VARIABLES = frozenset(
    {
        "LONGSPAN_SERVER",
        "LONGSPAN_API_KEY",
        "LONGSPAN_TLS_CA",
        "LONGSPAN_TLS_CERT",
        "LONGSPAN_TLS_KEY",
    }
)


class Config(BaseSettings):
    """Everything that can be set; see ``longspan serve --help``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_prog_name="longspan serve",
        cli_hide_none_type=True,
    )

    config: Path | None = Field(None, description="TOML file to read settings from")
    listen: str = Field(
        "127.0.0.1:50051", description="address of the API, host:port; port 0 picks one"
    )
    admin_listen: str | None = Field(
        None, description="address of the admin port (health and reflection); off by default"
    )
    data_dir: Path = Field(Path("longspan-data"), description="where documents are kept")
    encoder: str = Field(
        "embedded",
        description="'embedded' (all-MiniLM-L6-v2), a folder of a Hugging Face encoder, or 'none'",
    )
    encoder_dtype: Literal["auto", "float32", "bfloat16"] | None = Field(
        None, description="of the encoder; 'auto' beside a model, else what --dtype says"
    )
    encoder_device: str | None = Field(
        None, description="of the encoder; 'cpu' beside a model, else what --device says"
    )
    workers: PositiveInt = Field(1, description="worker processes of the encoder")
    worker_threads: PositiveInt | None = Field(None, description="CPU threads of each worker")
    worker_template: Path | None = Field(
        None,
        description="socket of a running 'python -m longspan.worker.template --socket PATH': "
        "workers on the CPU are its forks, which saves seconds of imports at each start",
    )
    model: str | None = Field(
        None,
        description="a decoder that writes answers: a folder of a Hugging Face model, or its "
        "id on the hub; without one the encoder picks sentences",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the model; of the encoder where there is no model"
    )
    device: str = Field(
        "cpu",
        description="of the model's workers: cpu, cuda:0, ..., or cuda: worker i runs on cuda:i; "
        "of the encoder's where there is no model",
    )
    model_workers: PositiveInt | None = Field(
        None, description="worker processes of the model; one a GPU with --device cuda, else one"
    )
    model_sequences: PositiveInt = Field(
        64, description="requests that one worker of the model has open at once; others wait"
    )
    kv_memory: ByteSize | None = Field(
        None, description="memory of each worker's KV pages, as in 8GiB; chosen by the worker"
    )
    kv_host: ByteSize | None = Field(
        None,
        description="host memory of each worker for the pages that hybrid-host keeps there, "
        "beside kv_ram; by default its part of what is free",
    )
    kv_ram: ByteSize = Field(
        ByteSize(0),
        description="host memory of each worker for KV pages that a GPU has no room for",
    )
    kv_disk: ByteSize = Field(
        ByteSize(16 << 30),
        description="what KV pages may take of the disk under data_dir, where documents outlive "
        "the server and the workers' memory; 0 keeps none",
    )
    step_tokens: PositiveInt | None = Field(
        None, description="tokens that one step of the model takes at most; chosen by the worker"
    )
    decode_batches: str = Field(
        "1,16,32",
        pattern=r"^[1-9]\d{0,3},[1-9]\d{0,3},[1-9]\d{0,3}$",
        description="smallest, optimal and largest decode batch captured as CUDA graphs",
    )
    compile_model: bool = Field(
        False,
        description="compile the model at start: minutes once, then quicker steps; nothing changes "
        "for Llama, Mistral, Qwen 2 and Qwen 3 on a GPU",
    )
    attention: str = Field(
        "full",
        description="how the model reads documents where a request does not say: full, window, "
        "hybrid, hierarchical, hybrid-exact, hybrid-4bit, hybrid-host, summary, lean, or a file "
        "that ends in .json, as longspan fidelity --calibrate writes",
    )
    attention_maps: Path | None = Field(
        None,
        description="feature maps distilled from the model, with which hierarchical-linear is "
        "served: an experiment",
    )
    result_cache_memory: ByteSize = Field(
        ByteSize(64 << 20), description="server memory for answers given before; 0 keeps none"
    )
    result_cache_redis: str | None = Field(
        None,
        pattern=r"^rediss?(\+cluster)?://\S+$",
        description="a Redis for them instead, redis://HOST:PORT or redis+cluster://HOST:PORT",
    )
    result_cache_redis_timeout_s: PositiveFloat = Field(
        0.05, description="an answer of Redis that takes longer is not waited for"
    )
    result_cache_ttl_s: PositiveFloat = Field(
        3600.0, description="how long they stay in memory or Redis"
    )
    result_cache_disk: ByteSize = Field(
        ByteSize(256 << 20),
        description="what they may take of the disk under data_dir; 0 keeps none there",
    )
    drain_s: PositiveFloat = Field(25.0, description="how long running calls may finish on SIGTERM")
    heartbeat_timeout_s: PositiveFloat = Field(
        3.0, description="a worker that is silent for so long is killed and replaced"
    )
    trust_tenant_metadata: bool = Field(
        False,
        description="take the tenant from the 'longspan-tenant' metadata; only behind a gateway "
        "that authenticates callers and sets it",
    )
    insecure: CliImplicitFlag[bool] = Field(
        False,
        description="listen beyond this machine without TLS or authentication; only where "
        "something else protects the port",
    )
    tls: TlsSettings = TlsSettings()
    auth: AuthSettings = AuthSettings()
    ready_file: Path | None = Field(
        None, description='written once the server is serving, as {"port": N}'
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = Field(
        "text", description="of the log on standard error: lines, or one JSON object a line"
    )
    tracing: TracingSettings = TracingSettings()
    limits: Limits = Limits()
    metrics: MetricsSettings = MetricsSettings()

    @model_validator(mode="after")
    def _values_fit_together(self) -> Self:
        sizes = [int(size) for size in self.decode_batches.split(",")]
        if sizes != sorted(sizes):
            raise ValueError(f"decode_batches {self.decode_batches} does not ascend")
        if self.model is None and self.encoder_dtype is None and self.dtype == "float16":
            raise ValueError("dtype float16 is for a model; the encoder takes float32 or bfloat16")
        if self.auth.enabled and self.trust_tenant_metadata:
            raise ValueError("trust_tenant_metadata lets callers choose a tenant: not with auth")
        if self.auth.certificate_tenant is not None and self.tls.client_ca is None:
            raise ValueError("auth.certificate_tenant needs tls.client_ca")
        return self

    @property
    def has_tenants(self) -> bool:
        """True where callers are told apart."""
        return self.trust_tenant_metadata or self.auth.enabled

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (added by pydantic), then the environment, then the file."""
        return init_settings, env_settings


def visible_devices() -> str | None:
    """``CUDA_VISIBLE_DEVICES``, which narrows the GPUs that workers see."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def load_config(arguments: Sequence[str]) -> Config:
    """Read file, environment and flags.

    Raises:
        ConfigError: something is unknown, malformed or out of range; the message names it.
        SystemExit: ``--help`` was asked for, or a flag is unknown (status 2).
    """
    _refuse_unknown_variables(os.environ)
    path = _config_path(arguments, os.environ)
    source = _with_file(path) if path is not None else Config
    try:
        return source(_cli_parse_args=list(arguments))  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError("; ".join(_problems(error))) from error
    except SettingsError as error:
        raise ConfigError(str(error)) from error


def _with_file(path: Path) -> type[Config]:
    try:
        tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path}: {error}") from error

    class FileConfig(Config):
        """``Config`` with a file below the environment."""

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **kwargs: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Add the file as the last source."""
            sources = super().settings_customise_sources(settings_cls, *args, **kwargs)
            return *sources, TomlConfigSettingsSource(settings_cls, path)

    return FileConfig


def _config_path(arguments: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    for position, argument in enumerate(arguments):
        if argument == "--config" and position + 1 < len(arguments):
            return Path(arguments[position + 1])
        if argument.startswith("--config="):
            return Path(argument.partition("=")[2])
    value = environment.get(f"{PREFIX}CONFIG")
    return Path(value) if value else None


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {*_variables(Config, PREFIX), *CLIENT_VARIABLES}
    unknown = sorted(
        n for n in environment if n.upper().startswith(PREFIX) and n.upper() not in known
    )
    if unknown:
        raise ConfigError(f"unknown environment variable {', '.join(unknown)}")


def _variables(settings: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        variable = f"{prefix}{name}".upper()
        yield variable
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _variables(field.annotation, f"{variable}__")


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"]) or "settings"
        message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        problems.append(f"{name}: {message}")
    return problems
