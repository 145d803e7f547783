"""The same images in a real registry, open and with a login, and in one that misbehaves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.registries import (
    Limits,
    OciRegistry,
)
from controller.uses.images import build_index, build_layout
from tests.support.fault_registry import FaultRegistry
from tests.support.registry import LOGIN, SECRET, FakePace, RunningRegistry, running_registry


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        build_layout(folder, "shop/api", f"v1.0.{number}", {"app/main": b"#!/bin/sh\necho %d\n" % number})
    build_index(
        folder, "shop/multi", "v1", {"linux/amd64": {"a": b"amd"}, "linux/arm64/v8": {"a": b"arm"}}, command=["/a"]
    )
    return folder


@pytest.fixture(scope="session")
def open_server(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("open")) as server:
        _fill(server, images)
        yield server


@pytest.fixture(scope="session")
def login_server(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("login"), user=LOGIN[0], password=SECRET) as server:
        _fill(server, images)
        yield server


def _fill(server: RunningRegistry, images: Path) -> None:
    for number in range(3):
        server.push(images, "shop/api", f"v1.0.{number}")
    server.push(images, "shop/multi", "v1")


@pytest.fixture
def faulty(images: Path) -> Iterator[FaultRegistry]:
    with FaultRegistry(images).running() as server:
        yield server


@pytest.fixture
def pace() -> FakePace:
    return FakePace()


@pytest.fixture
def client(pace: FakePace) -> Iterator[OciRegistry]:
    with contextlib.closing(OciRegistry(pace=pace, limits=Limits(timeout=5))) as registry:
        yield registry
