"""Checks what schemas and policies can't: that the manifests say what the documentation promises, and that every name in
them means something.
`promises.py overlay <name> <rendered>`, `promises.py compose <compose.yaml>`, or, where nothing can be rendered,
`promises.py sources <folder of manifests>`, which prints the manifests."""

import os
import re
import sys

import yaml

REPLICAS = {"local": (1, 3), "staging": (2, 10), "production": (5, 10)}
# By what each placement scales, in percent. The memory of deploy is that of its apps, which do not move to a new node.
SCALES_BY = {"callboard-gateway": {"cpu": 70, "memory": 80}, "callboard-deploy": {"cpu": 70}}
# As the names of overlays have it: staging with every optional component.
ALL_OPTIONS = "staging-with-options"
# Kinds of cert-manager and of the Prometheus operator, for which there is no schema to check by.
WITHOUT_SCHEMA = {"Issuer", "ServiceMonitor"}
KNOWN_GROUPS = ("apps/", "batch/", "policy/", "autoscaling/", "networking.k8s.io/")
# In the Secret that staging and production make outside of the tree.
SECRET_KEYS = {"master-key", "cluster-key", "database-url", "redis-url", "amqp-url", "metrics-token"}
OPTIONAL_KEYS = {"objects-access-key", "objects-secret-key"}
# Domains that run on every worker thread; the others have one thread of their own. All have something to do on the main
# thread too, and every node has the databases of the gateway (shared) and of the cluster (not). A test compares this with
# the connections that real nodes may open.
SHARED = {"auth", "organization", "project"}
DOMAINS = SHARED | {"deploy"}
# For the backup, an operator, and those that PostgreSQL keeps for its superuser.
SPARE = 10
problems = []


def must(holds, sentence):
    if not holds:
        problems.append(sentence)


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def template(workload):
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]


def connections(arguments, workers, each):
    """How many connections to PostgreSQL one node may open."""
    hosted = DOMAINS
    if "--domains" in arguments:
        hosted = set(arguments[arguments.index("--domains") + 1].split(","))
    return ((len(hosted & SHARED) + 1) * (workers + 1) + (len(hosted - SHARED) + 1) * 2) * each


def documented(name):
    """The row of an installation in the table of connections: workers, connections of each, all of them, and the limit."""
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "../docs/kubernetes.md"), encoding="utf-8") as file:
        row = re.search(rf"^\| {name} \|[^|]*\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", file.read(), re.MULTILINE)
    return tuple(map(int, row.groups())) if row else None


def check_connections(name, workers, each, all_nodes, limit):
    row = documented(name)
    limit = limit or (row or (0, 0, 0, 0))[3]
    must(row == (workers, each, all_nodes, limit), f"docs/kubernetes.md must say: {workers} | {each} | {all_nodes} | {limit}")
    must(all_nodes + SPARE <= limit, f"the nodes may open {all_nodes} connections, and PostgreSQL lets {limit} in")


class Overlay:
    def __init__(self, name, path):
        self.with_options = name == ALL_OPTIONS
        self.name = "staging" if self.with_options else name
        with open(path, encoding="utf-8") as file:
            self.all = [document for document in yaml.safe_load_all(file) if document]
        self.pods = [(w["metadata"]["name"], template(w)) for w in self.all if w["kind"] in
                     ("Deployment", "StatefulSet", "CronJob", "Job")]

    def of(self, kind):
        return {one["metadata"]["name"]: one for one in self.all if one["kind"] == kind}

    def check(self):
        self.kinds()
        self.placements()
        for name, pod in self.pods:
            self.pod(name, pod)
        self.selectors()
        self.network()
        self.connections()

    def kinds(self):
        for one in self.all:
            known = one["apiVersion"] == "v1" or one["apiVersion"].startswith(KNOWN_GROUPS)
            must(known or one["kind"] in WITHOUT_SCHEMA, f"{one['kind']} has no schema and is not expected")
        for name, space in self.of("Namespace").items():
            labels = space["metadata"]["labels"]
            must(labels.get("pod-security.kubernetes.io/enforce") == "restricted", f"{name} does not enforce restricted")
        bound = [one["kind"] for one in self.all if "Role" in one["kind"]]
        must(not bound, f"nothing needs the API of Kubernetes, but there is {bound}")

    def placements(self):
        for name, scales_by in SCALES_BY.items():
            spec = self.of("Deployment")[name]["spec"]
            must(spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, f"{name}: rolling update")
            must("replicas" not in spec, f"{name}: the count is the autoscaler's")
            pod = spec["template"]["spec"]
            must(pod["terminationGracePeriodSeconds"] > 25 + 5, f"{name}: a drain takes up to 25 s after preStop's 5")
            must("podAntiAffinity" in pod["affinity"], f"{name}: anti-affinity")
            node = pod["containers"][0]
            paths = [node[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
            must(paths == ["/health", "/health", "/ready"], f"{name}: probes at {paths}")
            scaler = self.of("HorizontalPodAutoscaler")[name]["spec"]
            must((scaler["minReplicas"], scaler["maxReplicas"]) == REPLICAS[self.name], f"{name}: how many")
            targets = {m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in scaler["metrics"]}
            must(targets == scales_by, f"{name}: scales by {targets}")
            must(name in self.of("PodDisruptionBudget"), f"{name}: no disruption budget")

    def pod(self, name, pod):
        spec = pod["spec"]
        account = self.of("ServiceAccount").get(spec.get("serviceAccountName"))
        must(account is not None, f"{name}: its account is missing")
        tokens = [spec.get("automountServiceAccountToken"), (account or {}).get("automountServiceAccountToken")]
        must(tokens == [False, False], f"{name}: gets a token")
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for container in spec["containers"] + spec.get("initContainers", []):
            must(container["securityContext"].get("readOnlyRootFilesystem"), f"{name}: writes to its root")
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            claimed = {"data"} if name in self.of("StatefulSet") else set()
            must(mounted <= set(volumes) | claimed, f"{name}: mounts {mounted - set(volumes)}, which is no volume")
            for variable in container.get("env", []):
                if variable["name"].endswith("_FILE"):
                    self.secret_key(name, variable["value"])
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            must(claim is None or claim in self.of("PersistentVolumeClaim"), f"{name}: no claim {claim}")
            config = volume.get("configMap", {}).get("name")
            must(config is None or config in self.of("ConfigMap"), f"{name}: no ConfigMap {config}")

    def secret_key(self, name, path):
        secret = self.of("Secret").get("callboard")
        keys = set(secret["data"]) if secret else SECRET_KEYS | (OPTIONAL_KEYS if self.with_options else set())
        must(os.path.basename(path) in keys, f"{name}: {path} is in no secret")

    def selectors(self):
        labels = [pod["metadata"]["labels"] for _, pod in self.pods]
        for name, service in self.of("Service").items():
            must(any(matches({"matchLabels": service["spec"]["selector"]}, pod) for pod in labels), f"{name}: no pod")
        for kind in ("NetworkPolicy", "PodDisruptionBudget"):
            for name, one in self.of(kind).items():
                selector = one["spec"].get("podSelector", one["spec"].get("selector"))
                must(any(matches(selector, pod) for pod in labels), f"{kind} {name} selects no pod")
        services = self.of("Service")
        for rule in self.of("Ingress")["callboard"]["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                must(path["backend"]["service"]["name"] in services, "the Ingress leads nowhere")

    def network(self):
        policies = self.of("NetworkPolicy")
        denied = policies["default-deny"]["spec"]
        must(denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "default-deny denies not all")
        # Each port that a pod needs, from its configuration, is open to it, and to nobody in the whole world but 443.
        needs = {"callboard": {53, 8080, 5432, 6379, 5672}, "backup-postgres": {53, 5432}, "backup-redis": {53, 6379}}
        if self.name != "local":
            # rediss:// and amqps://, and no backup of a Redis that somebody else runs.
            needs["callboard"] |= {6380, 5671} | ({443, 9000} if self.with_options else set())
            del needs["backup-redis"]
        jobs = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for name, pod in self.pods if name in self.of("CronJob")}
        must(jobs == set(needs) - {"callboard"}, f"the jobs are {jobs}")
        for app, ports in needs.items():
            for name, pod in self.pods:
                labels = pod["metadata"]["labels"]
                if labels["app.kubernetes.io/name"] != app:
                    continue
                open_to = set()
                for policy in policies.values():
                    if matches(policy["spec"]["podSelector"], labels):
                        for rule in policy["spec"].get("egress", []):
                            open_to |= {port["port"] for port in rule.get("ports", [])}
                            must(rule.get("to") and rule.get("ports"), f"{name} may speak to anybody")
                must(ports <= open_to, f"{name} can't reach port {ports - open_to}")
                must(open_to <= ports | {443, 4318}, f"{name} reaches port {open_to - ports}, which it does not need")


    def connections(self):
        (config,) = [one["data"]["callboard.toml"] for one in self.all
                     if one["kind"] == "ConfigMap" and "callboard.toml" in one["data"]]
        told = dict(re.findall(r"^(\w+) = (\d+)$", config, re.MULTILINE))
        workers, each = int(told["workers"]), int(told["database_connections"])
        total = 0
        for name in SCALES_BY:
            spec = self.of("Deployment")[name]["spec"]
            # While nodes are replaced there is one more.
            most = self.of("HorizontalPodAutoscaler")[name]["spec"]["maxReplicas"] + spec["strategy"]["rollingUpdate"]["maxSurge"]
            total += most * connections(spec["template"]["spec"]["containers"][0]["args"], workers, each)
        server = self.of("StatefulSet").get("postgres")
        check_connections(self.name, workers, each, total, server and limit_of(template(server)["spec"]["containers"][0]["args"]))


def limit_of(arguments):
    return int(next(argument.split("=")[1] for argument in arguments if argument.startswith("max_connections=")))


def check_compose(path):
    with open(path, encoding="utf-8") as file:
        compose = yaml.safe_load(file)
    nodes = [name for name in compose["services"] if name.startswith("node-")]
    must(len(nodes) == 3, f"three nodes, not {nodes}")
    for name, service in compose["services"].items():
        for secret in service.get("secrets", []):
            secret = secret if isinstance(secret, str) else secret["source"]
            must(secret in compose["secrets"], f"{name}: no secret {secret}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = source in compose["volumes"] or os.path.exists(os.path.join(os.path.dirname(path), source))
            must(there, f"{name}: mounts {source}, which is not there")
        for other in service.get("depends_on", []):
            must(other in compose["services"], f"{name}: depends on {other}")
        must(":" in service["image"] and not service["image"].endswith(":latest"), f"{name}: {service['image']}")
    for name in nodes:
        service = compose["services"][name]
        conditions = {other: how["condition"] for other, how in service["depends_on"].items()}
        healthy = {"postgres", "redis", "rabbitmq"}
        must({other for other, how in conditions.items() if how == "service_healthy"} == healthy, f"{name}: waits")
        must(service["read_only"] and service["cap_drop"] == ["ALL"], f"{name}: may do more than it needs")
        for variable, value in service["environment"].items():
            if variable.endswith("_FILE"):
                given = {secret["source"] for secret in service["secrets"]}
                must(os.path.basename(value) in given, f"{name}: {variable} is not given")
    told = [(int(environment["CALLBOARD_WORKERS"]), int(environment["CALLBOARD_DATABASE_CONNECTIONS"]))
            for environment in (compose["services"][name]["environment"] for name in nodes)]
    total = sum(connections(compose["services"][name]["command"], *of) for name, of in zip(nodes, told))
    must(len(set(told)) == 1, f"the nodes differ: {told}")
    check_connections("compose", *told[0], total, limit_of(compose["services"]["postgres"]["command"]))


def check_sources(folder):
    """What can be known of manifests that were not rendered: each file is used, and what is used is there. Prints all
    of them, for the schemas."""
    used, manifests = set(), []
    for place, _, files in os.walk(folder):
        if "kustomization.yaml" not in files:
            continue
        with open(os.path.join(place, "kustomization.yaml"), encoding="utf-8") as file:
            made = yaml.safe_load(file)
        resources = [os.path.normpath(os.path.join(place, path))
                     for path in made.get("resources", []) + made.get("components", [])]
        others = [patch["path"] for patch in made.get("patches", []) if "path" in patch]
        others += [path for one in made.get("configMapGenerator", []) for path in one["files"]]
        used |= {os.path.join(place, "kustomization.yaml"), *resources}
        used |= {os.path.normpath(os.path.join(place, path)) for path in others}
        for path in filter(os.path.isfile, resources):
            with open(path, encoding="utf-8") as file:
                manifests += [one for one in yaml.safe_load_all(file) if one]
    for path in sorted(used):
        must(os.path.exists(path), f"{path} is named and not there")
    there = {os.path.join(place, file) for place, _, files in os.walk(folder) for file in files}
    for path in sorted(there - used):
        must(os.path.basename(os.path.dirname(path)) == "secrets", f"{path} is named by no kustomization")
    names = {}
    for one in manifests:
        names.setdefault(one["kind"], set()).add(one["metadata"]["name"])
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet", "CronJob"):
            account = template(one)["spec"]["serviceAccountName"]
            must(account in names["ServiceAccount"], f"{one['metadata']['name']}: no account {account}")
    yaml.safe_dump_all(manifests, sys.stdout)


match sys.argv[1:]:
    case ["overlay", overlay, rendered]:
        Overlay(overlay, rendered).check()
    case ["compose", path]:
        check_compose(path)
    case ["sources", folder]:
        check_sources(folder)
    case _:
        sys.exit(__doc__)
for problem in problems:
    print(f"error: {' '.join(sys.argv[1:3])}: {problem}", file=sys.stderr)
sys.exit(1 if problems else 0)
