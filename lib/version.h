/* The version of imgbuild, in one place. */
#ifndef IMGBUILD_LIB_VERSION_H
#define IMGBUILD_LIB_VERSION_H

#define IMGBUILD_VERSION "0.1.0"

#endif
