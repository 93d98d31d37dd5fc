"""A peer of several processes: python ranks.py NAME THREADS RANKS; requests and answers as in peer.py, of whose batches each rank has its part.

ddp-gloo, ddp-gloo-channels-last, ddp-gloo-compile: torch.nn.parallel.DistributedDataParallel over gloo, as PyTorch's documentation advises; this process is rank 0 and starts the others.
ddp-mpi: the same over MPI, started by mpirun, where this PyTorch has been built with it.
"""
import json, os, socket, subprocess, sys

name, ranks = sys.argv[1], int(sys.argv[3])
import peer


def start():
    """Joins the ranks; gives this one's number and the version."""
    import torch, torch.distributed as dist
    if name == "ddp-mpi":
        if not dist.is_mpi_available():
            raise RuntimeError("this PyTorch (%s) was built without MPI" % torch.__version__)
        dist.init_process_group("mpi")
    else:
        if "RANK" not in os.environ:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(ranks), RANK="0")
            for r in range(1, ranks):
                subprocess.Popen([sys.executable] + sys.argv, env=dict(os.environ, RANK=str(r)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        dist.init_process_group("gloo")
    return dist.get_rank(), "%s over %s" % (torch.__version__, dist.get_backend())


try:
    rank, version = start()
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    peer.shared = lambda net: DistributedDataParallel(net, gradient_as_bucket_view=True)
    _, peer.make = peer.torch_peer(not name.endswith("-gloo"), name.endswith("compile"))
    if rank == 0:
        print(json.dumps({"ready": True, "name": name, "version": version, "threads": peer.threads}), flush=True)
except Exception as e:
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"error": str(e)}), flush=True)
    sys.exit(1)
while True:
    line = [sys.stdin.readline() if rank == 0 else None]
    dist.broadcast_object_list(line)
    if not line[0]:
        break
    r = json.loads(line[0])
    if r.get("work") not in ("train_cnn", "gpt"):
        a = {"error": peer.NOT_MINE}
    else:
        if r["batch"] % ranks:
            a = {"error": "a batch of %d cannot be shared out evenly to %d ranks" % (r["batch"], ranks)}
        else:
            r["batch"] //= ranks
            a = peer.answer(json.dumps(r))
            memory = [None] * ranks
            dist.all_gather_object(memory, a.get("rss_bytes", 0))
            if "rss_bytes" in a:
                a["rss_bytes"] = max(memory)
    if rank == 0:
        print(json.dumps(a), flush=True)
dist.destroy_process_group()
