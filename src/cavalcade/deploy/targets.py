"""What is printed for each target: from a plan and what the user has chosen to the text of the files."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cavalcade import build
from cavalcade.config.addresses import Bind, join, parse
from cavalcade.config.values import OPTIONS, show
from cavalcade.deploy import health
from cavalcade.deploy.plan import Plan, reachable, seconds, shell
from cavalcade.deploy.template import fill
from cavalcade.errors import UsageError

CONTAINER_UID = 10001  # nobody's on any distribution, so a file of the host is never its
WATCHDOG_AFTER_S = 30.0  # beyond stall_kill: the supervisor replaces a blocked worker, and the new one boots
MEMORY_GUESS_MIB = 256  # of a worker with a framework and an app


@dataclass(frozen=True)
class Choices:
    """What the command line says beside the server's options; None where it says nothing."""

    upstream: tuple[str, ...] = ()
    listen: str | None = None
    image: str | None = None
    replicas: int | None = None
    made_by: str = "cavalcade deploy"
    program: str = "cavalcade"  # where it is installed here


@dataclass(frozen=True)
class File:
    name: str
    text: str


@dataclass(frozen=True)
class Target:
    """One tool. `takes` are the choices that mean something to it."""

    about: str
    takes: frozenset[str]
    make: Callable[[Plan, Choices, list[str]], list[File]]


# -- proxies ---------------------------------------------------------------------------------------------------------------


def _upstreams(plan: Plan, choices: Choices, *, proxy_protocol: bool = False) -> list[Bind]:
    """The instances to send requests to: those named, or the one of the settings on this machine. Raises `UsageError`, also where one
    wants the PROXY protocol of a proxy that does not speak it."""
    fix = "Say --upstream host:port or unix:/path, once for each instance"
    try:
        named = [_plain(parse(text)) for text in choices.upstream]
    except ValueError as error:
        raise UsageError(f"--upstream: {error}", fix=fix) from None
    found = named or [_plain(reachable(plan.binds[0]))]
    doubles = sorted({each.plain for each in found if found.count(each) > 1})
    if doubles:
        raise UsageError(f"--upstream: {doubles[0]} is given twice", fix="Once for each instance")
    wanting = [each.plain for each in found if each.proxy_protocol]
    if wanting and not proxy_protocol:
        cause = f"{wanting[0]} wants the PROXY protocol, which this proxy does not speak to HTTP servers."
        raise UsageError(cause, fix="Listen without ?proxy_protocol=on: the client's address is in X-Forwarded-For. Or use haproxy")
    return found


def _plain(address: Bind) -> Bind:
    """An address that can stand in any of the files, which quote nothing. Raises `UsageError` for another."""
    if address.kind == "fd":
        raise UsageError(f"{address.plain} is no address that others can be told of.", fix="Say host:port or unix:/path")
    if address.kind == "unix" and not re.fullmatch(r"/[\w./+-]+", address.path):
        raise UsageError(f"{address.plain} cannot be written into these files.", fix="Use an absolute path of letters, digits and . _ + -")
    return address


def _listen(choices: Choices) -> Bind:
    """Where the proxy listens: --listen, or port 80 of every interface. Raises `UsageError`."""
    text = choices.listen or ":80"
    try:
        return _plain(parse(f":{text}" if text.isdigit() else text))
    except ValueError as error:
        raise UsageError(f"--listen: {error}", fix="Say --listen port or --listen host:port") from None


def _proxy(plan: Plan, choices: Choices, notes: list[str]) -> dict[str, str | list[str]]:
    """The values that every proxy's template has. Raises `UsageError` for a server that does not speak plain HTTP."""
    if plan.resolved.settings.ssl_certfile:
        fix = "Leave TLS to the proxy: --ssl-certfile ''"
        raise UsageError("The server speaks HTTPS (ssl_certfile), and the proxy would speak HTTP to it.", fix=fix)
    if not choices.upstream:
        notes.append(
            f"one instance, {reachable(plan.binds[0]).plain}: it cannot be replaced unnoticed. Name several: --upstream host:port ..."
        )
    settings = plan.resolved.settings
    binds = plan.binds if not choices.upstream else ()  # elsewhere each has its own
    words = plan.arguments(binds)
    if binds == () and _believes_nobody_else(plan) and any(not _is_here(each) for each in _upstreams(plan, choices, proxy_protocol=True)):
        words += ["--trusted-proxies", "ADDRESS_OF_THIS_PROXY"]  # or its X-Forwarded-For is not believed
    return {
        "app": settings.app,
        "made_by": choices.made_by,
        "name": plan.name,
        "id": plan.name.replace("-", "_"),
        "command": shell(["cavalcade", *words, *([] if binds else ["--bind", "ADDRESS"])]),
        "numbers": plan.numbers(),
        "upstream_idle": seconds(plan.upstream_idle),
        "head_timeout": seconds(settings.head_timeout),
    }


def _believes_nobody_else(plan: Plan) -> bool:
    """Nobody has said whose forwarded headers the server believes: those of this machine only."""
    return plan.resolved.origins["trusted_proxies"] == "default"


def _is_here(address: Bind) -> bool:
    return bool(address.path) or address.host == "localhost" or (_is_ip(address.host) and _ip(address.host).is_loopback)


def _size(plan: Plan) -> int:
    return plan.resolved.settings.limit_request_body


def nginx(plan: Plan, choices: Choices, notes: list[str]) -> list[File]:
    listen = _listen(choices)
    passive = f"max_fails=1 fail_timeout={health.passive_s()}s"
    values = _proxy(plan, choices, notes) | {
        "servers": [f"server {address.plain} {passive};" for address in _upstreams(plan, choices)],
        "listen": f"unix:{listen.path}" if listen.path else join("*" if listen.host == "0.0.0.0" else listen.host, listen.port),
        "server_name": "server_name _;",
        "body": str(_size(plan)),
    }
    return [File(f"{plan.name}.conf", fill("nginx.conf", values))]


def haproxy(plan: Plan, choices: Choices, notes: list[str]) -> list[File]:
    def server(address: Bind) -> str:
        return (address.path or address.plain) + (" send-proxy-v2 check-send-proxy" if address.proxy_protocol else "")

    listen, upstreams = _listen(choices), _upstreams(plan, choices, proxy_protocol=True)
    values = _proxy(plan, choices, notes) | {
        "servers": [f"server {plan.name}-{number} {server(each)}" for number, each in enumerate(upstreams, 1)],
        "listen": listen.path or join("*" if listen.host == "0.0.0.0" else listen.host, listen.port),
        "check": health.haproxy(),
    }
    if _size(plan):
        notes.append("limit_request_body is kept by the servers; HAProxy passes every body on")
    return [File("haproxy.cfg", fill("haproxy.cfg", values))]


def caddy(plan: Plan, choices: Choices, notes: list[str]) -> list[File]:
    listen = _listen(choices)
    if listen.path:
        raise UsageError(f"--listen {listen.plain}: Caddy takes a host and a port here.", fix="Say --listen host:port")
    # `http://` in front, or Caddy would ask for a certificate; and a host in the address is one that requests must name.
    bind = [f"bind {listen.host}"] if listen.host != "0.0.0.0" else []
    body = ["request_body {", f"\tmax_size {_size(plan)}", "}"] if _size(plan) else []
    values = _proxy(plan, choices, notes) | {
        "servers": " ".join(f"unix/{each.path}" if each.path else each.plain for each in _upstreams(plan, choices)),
        "listen": f"http://:{listen.port}",
        "body": [*bind, *body],
        "passive": str(health.passive_s()),
    }
    return [File("Caddyfile", fill("Caddyfile", values))]


def envoy(plan: Plan, choices: Choices, notes: list[str]) -> list[File]:
    upstreams = _upstreams(plan, choices)
    names = [each for each in upstreams if not each.path and not _is_ip(each.host)]
    if names and any(each.path for each in upstreams):
        raise UsageError(f"Envoy cannot have a host name ({names[0].host}) and a unix socket in one cluster.", fix="Use an IP address")
    values = _proxy(plan, choices, notes) | {
        "servers": [f"- endpoint: {{ address: {_envoy_address(each)} }}" for each in upstreams],
        "listen": _envoy_address(_listen(choices)),
        "cluster_type": "STRICT_DNS" if names else "STATIC",
        "health": health.envoy(),
        "upstream_idle": f"{plan.upstream_idle:g}s",  # a protobuf duration knows no milliseconds
        "head_timeout": f"{plan.resolved.settings.head_timeout:g}s",
    }
    if _size(plan):
        notes.append("limit_request_body is kept by the servers; Envoy passes every body on")
    return [File(f"{plan.name}-envoy.yaml", fill("envoy.yaml", values))]


def _is_ip(host: str) -> bool:
    try:
        _ip(host)
    except ValueError:
        return False
    return True


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Raises `ValueError` for a name."""
    return ipaddress.ip_address(host.partition("%")[0])


def _envoy_address(address: Bind) -> str:
    if address.path:
        return f"{{ pipe: {{ path: {json.dumps(address.path)} }} }}"
    return f"{{ socket_address: {{ address: {json.dumps(address.host)}, port_value: {address.port} }} }}"


# -- one machine -----------------------------------------------------------------------------------------------------------


def systemd(plan: Plan, choices: Choices, notes: list[str]) -> list[File]:
    settings = plan.resolved.settings
    named = [bind.host for bind in plan.binds if not bind.path and not _is_ip(bind.host) and bind.host != "localhost"]
    if named:
        raise UsageError(f"systemd listens on IP addresses only, not on the name {named[0]}.", fix="Say --bind IP:port or unix:/path")
    binds = [dataclasses.replace(_plain(bind), host="127.0.0.1" if bind.host == "localhost" else bind.host) for bind in plan.binds]
    # A path of its own, so that the unit knows it; %t is /run.
    control = f"%t/{plan.name}/control.sock" if settings.control == "auto" else settings.control
    if control == "off":
        raise UsageError("`systemctl reload` asks over the control socket, which is off.", fix="Leave --control off out")
    user, home = _user(plan.directory, choices.program)
    if user == "DynamicUser=yes":
        notes.append("the service runs as a user of its own that owns no files (DynamicUser=yes); where the app writes some, say User=")
    common: dict[str, str | list[str]] = {"app": settings.app, "made_by": choices.made_by, "name": plan.name}
    opened = [dataclasses.replace(bind, mode=-1, user="", group="") for bind in binds]  # that is for whoever makes the file
    words = plan.arguments(opened, "--control", control, app_dir=False)
    service = common | {
        "numbers": plan.numbers(),
        "user": user,
        "home": home,
        "directory": str(plan.directory).replace("%", "%%"),
        "command": _unit_words([choices.program, *words]),
        "reload": _unit_words([choices.program, "reload", "--control", control]),
        "boot": seconds(plan.boot),
        "stop": seconds(plan.stop),
        "watchdog": seconds(settings.stall_kill + WATCHDOG_AFTER_S),
    }
    sockets = common | {
        "listen": [f"ListenStream={(bind.path or bind.plain).replace('%', '%%')}" for bind in binds],
        "backlog": str(settings.backlog),
        "unix": _socket_rights(binds),
    }
    return [File(f"{plan.name}.service", fill("service.unit", service)), File(f"{plan.name}.socket", fill("socket.unit", sockets))]


def _socket_rights(binds: Sequence[Bind]) -> list[str]:
    """Who may connect to unix sockets: what the first of them asks for, or the group of the proxy, which is unknown here."""
    bind = next((bind for bind in binds if bind.path), None)
    if bind is None:
        return []
    owners = [f"Socket{key}={value}" for key, value in (("User", bind.user), ("Group", bind.group)) if value]
    unknown = ["#SocketGroup= is for you to say: the group that the proxy is in"]
    return [f"SocketMode={bind.mode if bind.mode >= 0 else 0o660:04o}", *(owners or unknown)]


def _user(directory: Path, program: str) -> tuple[str, str]:
    """`User=`, and what the service sees of /home: the app's owner where the files are in a home, else a user of its own."""
    at_home = any(path.startswith(("/home/", "/root/")) for path in (f"{directory}/", program))
    try:
        owner = directory.owner()
    except (KeyError, OSError):
        owner = "root"
    if owner == "root" and not at_home:
        return "DynamicUser=yes", "yes"
    return f"User={owner}", "read-only" if at_home else "yes"


def _unit_words(words: list[str]) -> str:
    """A command line as systemd reads it; % and $ would be replaced. %t is meant."""
    quoted = []
    for word in words:
        word = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
        word = word if word.startswith("%t/") else word.replace("%", "%%")
        quoted.append(f'"{word}"' if not word or any(char in word for char in " \t'\";\\") else word)
    return " ".join(quoted)


# -- containers ------------------------------------------------------------------------------------------------------------


def _container(plan: Plan, choices: Choices, notes: list[str]) -> tuple[Bind, list[str], list[str]]:
    """Where the server listens in its container, its arguments, and how `cavalcade health` finds it. Raises `UsageError`."""
    bind = plan.binds[0]
    if len(plan.binds) > 1 or bind.kind != "tcp":
        fix = "Say --bind 0.0.0.0:8000"
        raise UsageError(f"A container is reached on one port, not on {', '.join(map(str, plan.binds))}.", fix=fix)
    if not _is_ip(bind.host) or _ip(bind.host).is_loopback:
        if plan.resolved.origins["bind"] != "default":
            notes.append(f"{bind.plain} cannot be reached from outside of a container: 0.0.0.0:{bind.port} is written")
        bind = dataclasses.replace(bind, host="0.0.0.0")
    settings = plan.resolved.settings
    if Path(settings.app_dir).is_absolute():
        raise UsageError(f"app_dir {settings.app_dir} is a place on this machine.", fix="Give it relative to the project")
    if settings.control == "off":
        raise UsageError("Health is asked over the control socket, which is off.", fix="Leave --control off out")
    if _believes_nobody_else(plan):
        notes.append("a proxy's X-Forwarded-For is believed of the same machine only; for another say --trusted-proxies NETWORK")
    if settings.ssl_certfile:
        notes.append(f"{settings.ssl_certfile} (ssl_certfile) must be in the image or in a volume")
    control = [] if settings.control == "auto" else ["--control", settings.control]
    return bind, plan.arguments([bind], *control), control


def docker(plan: Plan, choices: Choices, notes: list[str]) -> list[File]:
    bind, words, control = _container(plan, choices, notes)
    values: dict[str, str | list[str]] = {
        "app": plan.resolved.settings.app,
        "made_by": choices.made_by,
        "name": plan.name,
        "numbers": plan.numbers(),
        "stop": f"{plan.stop:.0f}",
        "port": str(bind.port),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "install": _install(Path.cwd()),
        "uid": str(CONTAINER_UID),
        "health": health.docker(plan.boot, control),
        "arguments": ", ".join(json.dumps(word) for word in words),
    }
    return [File("Dockerfile", fill("Dockerfile", values)), File(".dockerignore", fill("dockerignore", {}))]


def _install(project: Path) -> list[str]:
    """How the app's packages get into the image, by what the project says of them."""
    pip = f"RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir cavalcade=={build.VERSION}"
    if (project / "requirements.txt").is_file():
        return ["COPY requirements.txt .", f"{pip} -r requirements.txt"]
    if (project / "pyproject.toml").is_file():
        return ["COPY . .", f"{pip} ."]
    return ["# No requirements.txt and no pyproject.toml were found: say here what the app needs.", pip]


def kubernetes(plan: Plan, choices: Choices, notes: list[str]) -> list[File]:
    bind, words, control = _container(plan, choices, notes)
    if choices.image is None:
        notes.append(f"the image is called {plan.name}:latest; --image REGISTRY/NAME:TAG says which it is")
    settings, workers = plan.resolved.settings, plan.workers
    memory = f"{max(1, settings.max_memory * workers * 5 // 4 // 2**20) if settings.max_memory else MEMORY_GUESS_MIB * (workers + 1)}Mi"
    if settings.max_memory:
        notes.append(
            f"memory {memory} is max_memory ({show(OPTIONS['max_memory'], settings.max_memory)}) for {workers} workers, and a quarter"
        )
    cpu = [f'limits: {{cpu: "{workers}"}} # --workers auto makes as many as this'] if plan.workers_auto else []
    replicas = 3 if choices.replicas is None else choices.replicas
    values: Mapping[str, str | list[str]] = {
        "app": settings.app,
        "made_by": choices.made_by,
        "name": plan.name,
        "numbers": plan.numbers(),
        "replicas": str(replicas),
        "stop": f"{plan.stop:.0f}",
        "uid": str(CONTAINER_UID),
        "image": json.dumps(choices.image or f"{plan.name}:latest"),
        "arguments": [f"- {json.dumps(word)}" for word in words],
        "port": str(bind.port),
        "probes": health.kubernetes(plan.boot, control),
        "workers": str(workers),
        "memory": memory,
        "limits": cpu,
    }
    return [File(f"{plan.name}.yaml", fill("kubernetes.yaml", values))]


_PROXY = frozenset({"upstream", "listen"})

TARGETS: Mapping[str, Target] = {
    "kubernetes": Target("Deployment, Service and PodDisruptionBudget.", frozenset({"image", "replicas"}), kubernetes),
    "docker": Target("Dockerfile and .dockerignore.", frozenset(), docker),
    "systemd": Target("A service and its sockets.", frozenset(), systemd),
    "nginx": Target("A site with its upstream.", _PROXY, nginx),
    "haproxy": Target("A frontend and its backend.", _PROXY, haproxy),
    "caddy": Target("A Caddyfile.", _PROXY, caddy),
    "envoy": Target("A listener, its routes and their cluster.", _PROXY, envoy),
}
