"""Checks what schemas and policies can't: that the manifests say what the documentation promises, and that every name in
them means something. `promises.py overlay <name> <rendered>` or `promises.py compose <compose.yaml>`."""

import os
import sys

import yaml

REPLICAS = {"local": (1, 3), "staging": (2, 10), "production": (5, 10)}
PLACEMENTS = ["callboard-gateway", "callboard-deploy"]
# Kinds of cert-manager and of the Prometheus operator, for which there is no schema to check by.
WITHOUT_SCHEMA = {"Issuer", "ServiceMonitor"}
KNOWN_GROUPS = ("apps/", "batch/", "policy/", "autoscaling/", "networking.k8s.io/")
# In the Secret that staging and production make outside of the tree.
SECRET_KEYS = {"master-key", "cluster-key", "database-url", "redis-url", "amqp-url", "metrics-token"}
problems = []


def must(holds, sentence):
    if not holds:
        problems.append(sentence)


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def template(workload):
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]


class Overlay:
    def __init__(self, name, path):
        self.name = name
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
        for name in PLACEMENTS:
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
            must(targets == {"cpu": 70, "memory": 80}, f"{name}: scales by {targets}")
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
        keys = set(secret["data"]) if secret else SECRET_KEYS
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


match sys.argv[1:]:
    case ["overlay", overlay, rendered]:
        Overlay(overlay, rendered).check()
    case ["compose", path]:
        check_compose(path)
    case _:
        sys.exit(__doc__)
for problem in problems:
    print(f"error: {' '.join(sys.argv[1:3])}: {problem}", file=sys.stderr)
sys.exit(1 if problems else 0)
