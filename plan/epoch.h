/* The epoch: bumped by one whenever the same plan would give other bytes, because the guest's init, the packing of the
 * initrd or the writer of the image changed in a way that shows in the image. It is the first line of what the key is
 * the digest of, so a bump makes every image a miss. tests/epoch-check.sh fails when those sources change and this does
 * not. */
#ifndef IMGBUILD_PLAN_EPOCH_H
#define IMGBUILD_PLAN_EPOCH_H

#define IMGBUILD_EPOCH 2

#endif
