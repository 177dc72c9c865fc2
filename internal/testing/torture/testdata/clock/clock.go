package main

import (
	"os"
	"syscall"
	"unsafe"
)

// clockOffset points to the offset of the wall clock of this process in seconds: eight bytes,
// little-endian, in the file that TORTURE_CLOCK names, which is mapped into memory.
var clockOffset unsafe.Pointer

// replaceClock makes the runtime call the function in clock_amd64.s instead of the kernel's.
func replaceClock()

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
	clockOffset = unsafe.Pointer(&page[0])
	replaceClock()
}
