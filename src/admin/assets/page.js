// The pages work without this script. It only adds comfort.
"use strict";
