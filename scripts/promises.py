"""Checks what schemas and policies can't: that the manifests say what the documentation promises, and that every name in
them means something.
`promises.py overlay <name> <rendered>`, `promises.py compose <compose.yaml>`, `promises.py terminals <cluster.md>`, or
`promises.py sources <folder of manifests>`."""

import os
import re
import sys

import yaml

# A folder of compiled modules belongs in no tree.
sys.dont_write_bytecode = True
import connections

REPLICAS = {"local": (1, 3), "staging": (2, 10), "production": (5, 10)}
# By what each placement scales, in percent. The memory of deploy is that of its apps, which do not move to a new node.
SCALES_BY = {"callboard-gateway": {"cpu": 70, "memory": 80}, "callboard-deploy": {"cpu": 70}}
IMAGES = {"callboard-gateway": "callboard", "callboard-deploy": "callboard-deploy"}
# As the names of overlays have it: staging with every optional component.
ALL_OPTIONS = "staging-with-options"
# Kinds for which there is no schema to check by.
WITHOUT_SCHEMA = {"ServiceMonitor"}
KNOWN_GROUPS = ("apps/", "batch/", "policy/", "autoscaling/", "networking.k8s.io/")
# In the Secret that staging and production make outside of the tree.
SECRET_KEYS = {"master-key", "cluster-key", "database-url", "redis-url", "amqp-url", "metrics-token"}
OPTIONAL_KEYS = {"objects-access-key", "objects-secret-key"}
# How often each backup is made, as cron has it and in words, and how many are kept.
BACKUPS = {"backup-postgres": (r"\d+ \d+ \* \* \*", "every day", "14"),
           "backup-redis": (r"\d+ \* \* \* \*", "every hour", "48")}
# Who may speak to the pods of a workload, and at which port; to all others nobody may.
REACHED_BY = {"callboard-gateway": ({"namespace ingress-nginx", "namespace monitoring", "callboard"}, 8080),
              "callboard-deploy": ({"namespace monitoring", "callboard"}, 8080),
              "postgres": ({"callboard", "backup-postgres"}, 5432),
              "redis": ({"callboard", "backup-redis"}, 6379),
              "rabbitmq": ({"callboard"}, 5672)}
NAME, SPACE = "app.kubernetes.io/name", "kubernetes.io/metadata.name"
# As docker/prometheus and docker/grafana ask for it.
JOB = "callboard"
problems = []


def must(holds, sentence):
    if not holds:
        problems.append(sentence)


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def template(workload):
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]


def containers(pod):
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def port_names(container):
    return {port["name"] for port in container.get("ports", [])}


def secrets_of(volume):
    """The Secrets of a volume by name, and what it has of each."""
    if "secret" in volume:
        yield volume["secret"]["secretName"], volume["secret"]
    for source in volume.get("projected", {}).get("sources", []):
        if "secret" in source:
            yield source["secret"]["name"], source["secret"]


def who(peer):
    """Pods by the name that they share, or a whole namespace; anything else as it is written."""
    name = peer.get("podSelector", {}).get("matchLabels", {}).get(NAME)
    space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get(SPACE)
    if peer == {"podSelector": {"matchLabels": {NAME: name}}}:
        return name
    return f"namespace {space}" if peer == {"namespaceSelector": {"matchLabels": {SPACE: space}}} else str(peer)


class Overlay:
    def __init__(self, name, path):
        self.with_options = name == ALL_OPTIONS
        self.name = "staging" if self.with_options else name
        self.is_local = self.name == "local"
        with open(path, encoding="utf-8") as file:
            self.all = [document for document in yaml.safe_load_all(file) if document]
        workloads = [one for one in self.all if one["kind"] in ("Deployment", "StatefulSet", "CronJob", "Job")]
        self.pods = [(one["metadata"]["name"], template(one)) for one in workloads]

    def of(self, kind):
        return {one["metadata"]["name"]: one for one in self.all if one["kind"] == kind}

    def check(self):
        self.kinds()
        deployments = self.of("Deployment")
        must(set(deployments) == set(SCALES_BY), f"the placements are {set(deployments)}")
        for name in SCALES_BY.keys() & deployments.keys():
            for promise in (self.placement, self.image, self.spread, self.scaling, self.disruption):
                promise(name, deployments[name]["spec"])
        for name, pod in self.pods:
            for promise in (self.account, self.volumes, self.secrets, self.probes, self.arrivals):
                promise(name, pod)
        self.services()
        self.selectors()
        self.ingress()
        self.monitoring()
        self.backups()
        self.departures()
        self.connections()

    def kinds(self):
        for one in self.all:
            known = one["apiVersion"] == "v1" or one["apiVersion"].startswith(KNOWN_GROUPS)
            expected = known or (one["kind"] in WITHOUT_SCHEMA and not self.is_local)
            must(expected, f"{one['kind']} is no kind of Kubernetes itself and not expected")
        for name, space in self.of("Namespace").items():
            labels = space["metadata"]["labels"]
            must(labels.get("pod-security.kubernetes.io/enforce") == "restricted", f"{name} does not enforce restricted")
        bound = [one["kind"] for one in self.all if "Role" in one["kind"]]
        must(not bound, f"nothing needs the API of Kubernetes, but there is {bound}")

    def placement(self, name, spec):
        must(spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, f"{name}: rolling update")
        must("replicas" not in spec, f"{name}: the count is the autoscaler's")
        pod = spec["template"]["spec"]
        must(pod["terminationGracePeriodSeconds"] > 25 + 5, f"{name}: a drain takes up to 25 s after preStop's 5")
        must("podAntiAffinity" in pod["affinity"], f"{name}: anti-affinity")
        node = pod["containers"][0]
        paths = [node[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
        must(paths == ["/health", "/health", "/ready"], f"{name}: probes at {paths}")

    def image(self, name, spec):
        image = IMAGES[name]
        named = rf"[\w.:-]+/([\w./-]+/)?{image}(:[\w.-]+|@sha256:[0-9a-f]{{64}})"
        form, wanted = (f"{image}:dev",) * 2 if self.is_local else (named, f"{image} of a registry, by tag or digest")
        for container in containers(spec["template"]):
            must(re.fullmatch(form, container["image"]), f"{name}: its image is {container['image']}, not {wanted}")
            must("command" not in container, f"{name}: a command takes the place of tini, which reaps what apps leave")

    def spread(self, name, spec):
        (zones,) = spec["template"]["spec"]["topologySpreadConstraints"]
        must(zones["topologyKey"] == "topology.kubernetes.io/zone", f"{name}: spread over {zones['topologyKey']}")
        if self.name == "production":
            must(zones["whenUnsatisfiable"] == "DoNotSchedule", f"{name}: may be in one zone alone")
            must(zones.get("nodeTaintsPolicy") == "Honor", f"{name}: a zone that has failed keeps the others from more")

    def scaling(self, name, _spec):
        scaler = self.of("HorizontalPodAutoscaler").get(name)
        if scaler is None:
            return must(False, f"{name}: no autoscaler")
        spec = scaler["spec"]
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        must(spec["scaleTargetRef"] == target, f"{name}: its autoscaler scales {spec['scaleTargetRef']}")
        must((spec["minReplicas"], spec["maxReplicas"]) == REPLICAS[self.name], f"{name}: how many")
        targets = {m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in spec["metrics"]}
        must(targets == SCALES_BY[name], f"{name}: scales by {targets}")

    def disruption(self, name, spec):
        """One node at a time may be drained. Two budgets for a pod would let none."""
        labels = spec["template"]["metadata"]["labels"]
        budgets = [one["spec"] for one in self.of("PodDisruptionBudget").values() if matches(one["spec"]["selector"], labels)]
        must(len(budgets) == 1, f"{name}: {len(budgets)} disruption budgets")
        for budget in budgets:
            must(budget["selector"] == spec["selector"], f"{name}: its disruption budget is not for its pods alone")
            must(budget.get("maxUnavailable") == 1, f"{name}: its disruption budget does not let one node go")

    def account(self, name, pod):
        spec = pod["spec"]
        account = self.of("ServiceAccount").get(spec.get("serviceAccountName"))
        must(account is not None, f"{name}: its account is missing")
        tokens = [spec.get("automountServiceAccountToken"), (account or {}).get("automountServiceAccountToken")]
        must(tokens == [False, False], f"{name}: gets a token")

    def volumes(self, name, pod):
        claims = self.of("StatefulSet").get(name, {"spec": {}})["spec"].get("volumeClaimTemplates", [])
        volumes = {one["name"] for one in pod["spec"].get("volumes", [])} | {one["metadata"]["name"] for one in claims}
        for container in containers(pod):
            must(container["securityContext"].get("readOnlyRootFilesystem"), f"{name}: writes to its root")
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            must(mounted <= volumes, f"{name}: mounts {mounted - volumes}, which is no volume")
        for volume in pod["spec"].get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            must(claim is None or claim in self.of("PersistentVolumeClaim"), f"{name}: no claim {claim}")
            config = volume.get("configMap", {}).get("name")
            must(config is None or config in self.of("ConfigMap"), f"{name}: no ConfigMap {config}")

    def keys(self, secret):
        """Of a Secret that is rendered or that, outside of local, an operator makes as the documentation says."""
        rendered = self.of("Secret").get(secret)
        if rendered:
            return set(rendered["data"])
        made = SECRET_KEYS | (OPTIONAL_KEYS if self.with_options else set())
        return made if secret == "callboard" and not self.is_local else set()

    def secrets(self, name, pod):
        """They are files, whose Secret and key are there. Variables could be read from the process that starts a node."""
        volumes = {}
        for volume in pod["spec"].get("volumes", []):
            for secret, source in secrets_of(volume):
                keys, optional = self.keys(secret), source.get("optional")
                must(keys or optional, f"{name}: no Secret {secret}")
                items = {item["key"]: item["path"] for item in source.get("items", [])} or {key: key for key in keys}
                must(optional or items.keys() <= keys, f"{name}: no keys {items.keys() - keys}")
                paths = {path for key, path in items.items() if key in keys}
                volumes[volume["name"]] = volumes.get(volume["name"], set()) | paths
        for container in containers(pod):
            seen = {os.path.join(mount["mountPath"], path) for mount in container.get("volumeMounts", [])
                    for path in volumes.get(mount["name"], ())}
            for variable in container.get("env", []):
                must("secretKeyRef" not in variable.get("valueFrom", {}), f"{name}: {variable['name']} is no file")
                is_there = not variable["name"].endswith("_FILE") or variable.get("value") in seen
                must(is_there, f"{name}: {variable['name']} is in no secret")
            must("envFrom" not in container, f"{name}: takes all variables of something")

    def probes(self, name, pod):
        for container in containers(pod):
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                for way in ("httpGet", "tcpSocket"):
                    port = container.get(probe, {}).get(way, {}).get("port")
                    must(port is None or port in port_names(container), f"{name}: {probe} asks port {port}, which is none")

    def services(self):
        for name, service in self.of("Service").items():
            pods = [pod for _, pod in self.pods
                    if matches({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])]
            must(pods, f"Service {name}: no pod")
            for port in service["spec"]["ports"]:
                there = all(port["targetPort"] in port_names(pod["spec"]["containers"][0]) for pod in pods)
                must(there, f"Service {name}: leads to port {port['targetPort']}, which is none")

    def selectors(self):
        labels = [pod["metadata"]["labels"] for _, pod in self.pods]
        for kind in ("NetworkPolicy", "PodDisruptionBudget"):
            for name, one in self.of(kind).items():
                selector = one["spec"].get("podSelector", one["spec"].get("selector"))
                must(any(matches(selector, pod) for pod in labels), f"{kind} {name} selects no pod")

    def ingress(self):
        """The platform and its apps by their names, with TLS. In local they are reached without one."""
        if self.is_local or "callboard" not in self.of("Ingress"):
            return must(self.is_local and not self.of("Ingress"), "Ingress: must be in all overlays but local")
        made = self.of("Ingress")["callboard"]
        annotations, spec = made["metadata"]["annotations"], made["spec"]
        must(annotations.get("cert-manager.io/cluster-issuer"), "Ingress: nobody issues its certificate")
        must(annotations.get("nginx.ingress.kubernetes.io/ssl-redirect") == "true", "Ingress: answers without TLS")
        told = self.configuration()
        hosts = [told["public_url"].removeprefix("https://"), f"*.{told['base_domain']}"]
        must([rule["host"] for rule in spec["rules"]] == hosts, f"Ingress: its rules are not for {hosts}")
        covered = [host for tls in spec.get("tls", []) if tls.get("secretName") for host in tls["hosts"]]
        must(covered == hosts, f"Ingress: its TLS is for {covered}, not {hosts}")
        for rule in spec["rules"]:
            for path in rule["http"]["paths"]:
                to = path["backend"]["service"]
                ports = self.of("Service").get(to["name"], {"spec": {"ports": []}})["spec"]["ports"]
                must(to["port"]["name"] in {port["name"] for port in ports}, f"Ingress: {rule['host']} leads nowhere")

    def monitoring(self):
        """Every node is scraped, under the name of the job by which rules and dashboard ask."""
        if self.is_local:
            return
        (monitor, *_) = [*self.of("ServiceMonitor").values(), None]
        if monitor is None:
            return must(False, "ServiceMonitor: there is none")
        spec, (endpoint,) = monitor["spec"], monitor["spec"]["endpoints"]
        found = [one for one in self.of("Service").values() if matches(spec["selector"], one["metadata"]["labels"])]
        must(len(found) == 1, f"ServiceMonitor: selects {len(found)} services")
        for service in found:
            job = service["metadata"]["labels"].get(spec.get("jobLabel"), service["metadata"]["name"])
            must(job == JOB, f"ServiceMonitor: its job is {job}, but rules and dashboard say {JOB}")
            must(service["spec"]["selector"] == {NAME: "callboard"}, "ServiceMonitor: not every node is scraped")
            must(endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}, "ServiceMonitor: no such port")
        token = endpoint["authorization"]["credentials"]
        must(token["key"] in self.keys(token["name"]), f"ServiceMonitor: its token, {token}, is in no Secret")

    def backups(self):
        """All that has a database of its own is dumped, and nothing else of the Secrets is where the dumps are made."""
        jobs = self.of("CronJob")
        sources = [one for volume in template(jobs["backup-postgres"])["spec"]["volumes"] for one in secrets_of(volume)]
        must(("callboard-databases", {"name": "callboard-databases", "optional": True}) in sources, "backup-postgres: lacks the URLs of domains")
        keys = {item["key"] for secret, source in sources if secret == "callboard" for item in source.get("items", [{"key": "*"}])}
        must(all(key.endswith("database-url") for key in keys), f"backup-postgres: has {keys}")
        expected = BACKUPS.keys() if self.is_local else BACKUPS.keys() - {"backup-redis"}
        must(jobs.keys() == expected, f"the jobs are {set(jobs)}")
        for name in jobs.keys() & BACKUPS.keys():
            schedule, often, kept = BACKUPS[name]
            spec, container = jobs[name]["spec"], template(jobs[name])["spec"]["containers"][0]
            is_made = re.fullmatch(schedule, spec["schedule"]) and not spec.get("suspend")
            must(is_made, f"{name}: not made {often}, but at {spec['schedule']}")
            must(container["command"] == [f"/scripts/{name}"], f"{name}: runs {container['command']}")
            must({"name": "KEEP", "value": kept} in container["env"], f"{name}: does not keep {kept}")

    def rules(self, labels, direction):
        """Of all policies that select a pod, for what comes to it (Ingress) or goes from it (Egress)."""
        specs = [policy["spec"] for policy in self.of("NetworkPolicy").values()]
        return [rule for spec in specs if matches(spec["podSelector"], labels) and direction in spec.get("policyTypes", [])
                for rule in spec.get(direction.lower(), [])]

    def arrivals(self, name, pod):
        peers, port = REACHED_BY.get(name, (set(), None))
        found = set()
        for rule in self.rules(pod["metadata"]["labels"], "Ingress"):
            ports = [one["port"] for one in rule.get("ports", [])] or ["any"]
            found |= {(who(peer), port) for peer in rule.get("from", []) or [{}] for port in ports}
        wanted = {(peer, port) for peer in peers}
        must(wanted <= found, f"{name}: is not reached by {wanted - found}")
        must(found <= wanted, f"{name}: is reached by {found - wanted}, who need not")

    def departures(self):
        denied = self.of("NetworkPolicy").get("default-deny", {}).get("spec")
        must(denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "default-deny denies not all")
        # Each port that a pod needs, from its configuration, is open to it, and to nobody in the whole world but 443.
        needs = {"callboard": {53, 8080, 5432, 6379, 5672}, "backup-postgres": {53, 5432}, "backup-redis": {53, 6379}}
        if not self.is_local:
            # rediss:// and amqps://.
            needs["callboard"] |= {6380, 5671} | ({443, 9000} if self.with_options else set())
        for name, pod in self.pods:
            labels = pod["metadata"]["labels"]
            ports = needs.get(labels[NAME])
            if ports is None:
                continue
            rules = self.rules(labels, "Egress")
            must(all(rule.get("to") and rule.get("ports") for rule in rules), f"{name} may speak to anybody")
            open_to = {port["port"] for rule in rules for port in rule.get("ports", [])}
            must(ports <= open_to, f"{name} can't reach port {ports - open_to}")
            must(open_to <= ports | {443, 4318}, f"{name} reaches port {open_to - ports}, which it does not need")

    def configuration(self):
        (config,) = [one["data"]["callboard.toml"] for one in self.all
                     if one["kind"] == "ConfigMap" and "callboard.toml" in one["data"]]
        return {key: value.strip('"') for key, value in re.findall(r"^(\w+) = (.*)$", config, re.MULTILINE)}

    def connections(self):
        told = self.configuration()
        workers, each = int(told["workers"]), int(told["database_connections"])
        total = 0
        for name, deployment in self.of("Deployment").items():
            spec = deployment["spec"]
            # While nodes are replaced there is one more.
            most = REPLICAS[self.name][1] + spec["strategy"]["rollingUpdate"]["maxSurge"]
            total += most * connections.of_node(spec["template"]["spec"]["containers"][0]["args"], workers, each)
        server = self.of("StatefulSet").get("postgres")
        limit = server and connections.limit(template(server)["spec"]["containers"][0]["args"])
        problems.extend(connections.wrong(self.name, workers, each, total, limit))


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
        must("entrypoint" not in service, f"{name}: an entrypoint takes the place of tini, which reaps what apps leave")
        for variable, value in service["environment"].items():
            if variable.endswith("_FILE"):
                given = {secret["source"] for secret in service["secrets"]}
                must(os.path.basename(value) in given, f"{name}: {variable} is not given")
    told = [(int(environment["CALLBOARD_WORKERS"]), int(environment["CALLBOARD_DATABASE_CONNECTIONS"]))
            for environment in (compose["services"][name]["environment"] for name in nodes)]
    total = sum(connections.of_node(compose["services"][name]["command"], *of) for name, of in zip(nodes, told))
    must(len(set(told)) == 1, f"the nodes differ: {told}")
    limit = connections.limit(compose["services"]["postgres"]["command"])
    problems.extend(connections.wrong("compose", *told[0], total, limit))


def check_terminals(path):
    """The three nodes of docs/cluster.md on a PostgreSQL as it is installed."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    told = dict(re.findall(r"^export (CALLBOARD_\w+)=(\d+)$", text, re.MULTILINE))
    workers, each = (int(told.get(f"CALLBOARD_{name}", 0)) for name in ("WORKERS", "DATABASE_CONNECTIONS"))
    nodes = [line.split() for line in re.findall(r"; callboard serve (.*)$", text, re.MULTILINE)]
    must(len(nodes) == 3, f"three nodes, not {len(nodes)}")
    total = sum(connections.of_node(node, workers, each) for node in nodes)
    problems.extend(connections.wrong("three terminals", workers, each, total, connections.STOCK))


def check_sources(folder):
    """Each file is named by a kustomization. What is named and not there, kustomize refuses."""
    used, there = set(), set()
    for place, _, files in os.walk(folder):
        there |= {os.path.join(place, file) for file in files}
        if "kustomization.yaml" in files:
            with open(os.path.join(place, "kustomization.yaml"), encoding="utf-8") as file:
                made = yaml.safe_load(file)
            named = ["kustomization.yaml", *made.get("resources", [])]
            named += [patch["path"] for patch in made.get("patches", []) if "path" in patch]
            named += [path for one in made.get("configMapGenerator", []) for path in one["files"]]
            used |= {os.path.normpath(os.path.join(place, path)) for path in named}
    for path in sorted(there - used):
        must(os.path.basename(os.path.dirname(path)) == "secrets", f"{path} is named by no kustomization")


match sys.argv[1:]:
    case ["overlay", overlay, rendered]:
        Overlay(overlay, rendered).check()
    case ["compose", path]:
        check_compose(path)
    case ["terminals", path]:
        check_terminals(path)
    case ["sources", folder]:
        check_sources(folder)
    case _:
        sys.exit(__doc__)
for problem in problems:
    print(f"error: {' '.join(sys.argv[1:3])}: {problem}", file=sys.stderr)
sys.exit(1 if problems else 0)
