/* The guest's init for each architecture, as data in the engine. The files are named by the Makefile; an empty one means
 * that no compiler for it was there. */
	.section .rodata
	.balign 16
	.globl init_blob_amd64, init_blob_amd64_end, init_blob_arm64, init_blob_arm64_end
	.hidden init_blob_amd64, init_blob_amd64_end, init_blob_arm64, init_blob_arm64_end
init_blob_amd64:
	.incbin INIT_AMD64
init_blob_amd64_end:
	.balign 16
init_blob_arm64:
	.incbin INIT_ARM64
init_blob_arm64_end:
	.section .note.GNU-stack, "", %progbits
