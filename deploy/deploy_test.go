// Package deploy_test checks the files that start joule on clusters, as far as that can be done without one.
package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// linter runs a program on a file; where it is not installed the test says so. The checks of CI install both.
func linter(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

func TestSlurmScript(t *testing.T) {
	t.Run("bash", func(t *testing.T) { linter(t, "bash", "-n", "joule.slurm") })
	t.Run("shellcheck", func(t *testing.T) { linter(t, "shellcheck", "joule.slurm") })
	// What srun is given, with a srun that only prints: a first start, one after the job was requeued before the first checkpoint, and one after that. Another job's run is not gone on with.
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/srun", []byte("#!/bin/sh\necho \"$@\"\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	anew, again := "joule train char-gpt --batch 64 --out "+dir+"/runs/slurm-7 --threads 8", "joule train --resume last --out "+dir+"/runs/slurm-7 --threads 8"
	checkpoint := func(job string) {
		kept := filepath.Join(dir, "runs", "slurm-"+job, "run", "checkpoints")
		if err := os.MkdirAll(kept, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(kept, "000001-step-1.safetensors"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint("6")
	for i, want := range []string{anew, anew, again} {
		if want == again {
			checkpoint("7")
		}
		c := exec.Command("bash", "joule.slurm", "char-gpt", "--batch", "64")
		c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "SLURM_SUBMIT_DIR="+dir, "SLURM_JOB_ID=7", "SLURM_CPUS_PER_TASK=8")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("start %d: %v\n%s\nwant %s", i, err, out, want)
		}
	}
}

func TestContainerfile(t *testing.T) { linter(t, "hadolint", "Containerfile") }

// The fields of an MPIJob (kubeflow.org/v2beta1) and of pods that the manifest may use; a field that is not among them is a mistake.
type (
	mpiJob struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name, Namespace string }
		Spec       struct {
			SlotsPerWorker    int    `yaml:"slotsPerWorker"`
			SSHAuthMountPath  string `yaml:"sshAuthMountPath"`
			MPIImplementation string `yaml:"mpiImplementation"`
			RunPolicy         struct {
				CleanPodPolicy string `yaml:"cleanPodPolicy"`
				BackoffLimit   int    `yaml:"backoffLimit"`
			} `yaml:"runPolicy"`
			Replicas map[string]replica `yaml:"mpiReplicaSpecs"`
		}
	}
	replica struct {
		Replicas      int
		RestartPolicy string `yaml:"restartPolicy"`
		Template      struct {
			Spec struct {
				SecurityContext struct {
					FSGroup int `yaml:"fsGroup"`
				} `yaml:"securityContext"`
				Containers []container
				Volumes    []struct {
					Name  string
					Claim struct {
						Name string `yaml:"claimName"`
					} `yaml:"persistentVolumeClaim"`
				}
			}
		}
	}
	container struct {
		Name, Image     string
		Command, Args   []string
		SecurityContext struct {
			RunAsUser int `yaml:"runAsUser"`
		} `yaml:"securityContext"`
		Ports []struct {
			ContainerPort int `yaml:"containerPort"`
		}
		Resources struct{ Requests, Limits struct{ CPU, Memory string } }
		Mounts    []struct {
			Name string
			Path string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
)

func TestMPIJob(t *testing.T) {
	text, err := os.ReadFile("mpijob.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var j mpiJob
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&j); err != nil {
		t.Fatal(err)
	}
	s := j.Spec
	if j.APIVersion != "kubeflow.org/v2beta1" || j.Kind != "MPIJob" || j.Metadata.Name == "" || s.SlotsPerWorker < 1 || s.MPIImplementation != "OpenMPI" || s.RunPolicy.CleanPodPolicy != "Running" {
		t.Errorf("%+v", j)
	}
	if len(s.Replicas) != 2 || s.Replicas["Launcher"].Replicas != 1 || s.Replicas["Worker"].Replicas < 1 {
		t.Fatalf("one launcher and some workers are needed, not %+v", s.Replicas)
	}
	image, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range s.Replicas {
		if p := r.RestartPolicy; p != "Never" && p != "OnFailure" {
			t.Errorf("%s: restart policy %q", name, p)
		}
		c := r.Template.Spec.Containers[0]
		if c.SecurityContext.RunAsUser != 1000 || r.Template.Spec.SecurityContext.FSGroup != 1000 || !strings.Contains(string(image), "--uid 1000") {
			t.Errorf("%s does not run as the image's user", name)
		}
		volumes := map[string]bool{}
		for _, v := range r.Template.Spec.Volumes {
			volumes[v.Name] = v.Claim.Name != ""
		}
		for _, m := range c.Mounts {
			if !volumes[m.Name] {
				t.Errorf("%s mounts %s, which is no volume", name, m.Name)
			}
		}
	}
	// The port and the file of sshd are those of the image, and the launcher dials the same.
	worker, launcher := s.Replicas["Worker"].Template.Spec.Containers[0], s.Replicas["Launcher"].Template.Spec.Containers[0]
	if worker.Ports[0].ContainerPort != 2222 || !strings.Contains(launcher.Args[0], `"-p 2222"`) || !strings.Contains(string(image), `Port 2222`) || !strings.Contains(string(image), ".sshd_config") {
		t.Error("image, worker and launcher do not agree about sshd")
	}
	if out, err := exec.Command("sh", "-n", "-c", launcher.Args[0]).CombinedOutput(); err != nil {
		t.Errorf("the launcher's script: %v\n%s", err, out)
	}
}
