package main

import (
	"os"
	"syscall"
	"unsafe"
)

// The wall clock of this process is off by as many seconds as stand in the file
// that TORTURE_CLOCK names, eight bytes, little-endian, whenever it is read.
var clockOff unsafe.Pointer

// bendClock has the runtime ask the clock in clock_amd64.s from now on, where it
// asked the kernel's.
func bendClock()

func init() {
	f, err := os.Open(os.Getenv("TORTURE_CLOCK"))
	if err != nil {
		panic(err)
	}
	defer f.Close()
	page, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	clockOff = unsafe.Pointer(&page[0])
	bendClock()
}
