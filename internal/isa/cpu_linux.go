package isa

func cpuName() string { return cpuField("/proc/cpuinfo", "model name", "Model", "cpu model") }
